"""The shape of the code: layers, sizes, words, docstrings; checked here, for no linter does."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "src" / "wado"
MOST_LINES = 500
MOST_BODY_LINES = 60
EMPTY_WORDS = re.compile(r"Manager|Helper|Util|Processor|\bBase|Base\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


OURS = _python_files(SOURCE, PROJECT / "tests", PROJECT / "scripts")
TYPESCRIPT = sorted((PROJECT / "viewer" / "src").rglob("*.ts*"))


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", OURS + TYPESCRIPT, ids=_name)
def test_no_file_is_longer_than_500_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", OURS, ids=_name)
def test_no_function_body_is_longer_than_60_lines(path: Path):
    sizes = {
        f"{node.name}, line {node.lineno}": (node.end_lineno or 0) - node.body[0].lineno + 1
        for node in ast.walk(_tree(path))
        if isinstance(node, Function)
    }
    assert {name: size for name, size in sizes.items() if size > MOST_BODY_LINES} == {}


@pytest.mark.parametrize("path", OURS, ids=_name)
def test_names_say_what_a_thing_is(path: Path):
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in ast.walk(_tree(path)) if isinstance(node, kinds)}
    names.add(path.stem.title())
    assert {name for name in names if EMPTY_WORDS.search(name)} == set()


def _public(body: list[ast.stmt], where: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods; what is inside functions is private."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{where}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{where}{node.name}.")


@pytest.mark.parametrize("path", _python_files(SOURCE), ids=_name)
def test_public_names_have_docstrings(path: Path):
    tree = _tree(path)
    bare = [
        name
        for name, node in _public(tree.body)
        if isinstance(node, ast.ClassDef | Function) and not ast.get_docstring(node)
    ]
    assert bare == []
    assert ast.get_docstring(tree), "the module itself"


def test_dicom_attributes_are_named_by_their_keyword():
    """Never `study_uid`: the keyword is StudyInstanceUID."""
    short = re.compile(r"(?:study|series|instance|sop|patient)_uids?\Z")
    found = {
        f"{_name(path)}: {token.string}"
        for path in _python_files(SOURCE)
        for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        if token.type == tokenize.NAME and short.match(token.string)
    }
    assert found == set()


def test_the_layers_hold():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
