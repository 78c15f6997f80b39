"""`make conformance`: each line of tests/conformance/checklist.toml, with pass or fail.

A pytest plugin; tests name the lines that they show by ``@pytest.mark.ps318("id", …)``.
"""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
CHECKLIST = TESTS / "conformance" / "checklist.toml"
_NEEDS = {"M": "mandatory", "C": "conditional", "O": "optional"}


@dataclass(frozen=True)
class Line:
    """A line of the checklist; `declined` is why it is not offered."""

    group: str
    id: str
    section: str
    need: str
    text: str
    declined: str = ""


def lines() -> list[Line]:
    """Read the checklist."""
    groups = tomllib.loads(CHECKLIST.read_text(encoding="utf-8"))["group"]
    return [Line(group["title"], **line) for group in groups for line in group["lines"]]


def marked_tests() -> dict[str, list[str]]:
    """Names of the tests of each line, by reading the tests' sources."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for function, line_id in _marks(path):
            found[line_id].append(f"{path.relative_to(TESTS).as_posix()}::{function}")
    return found


def _marks(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.ps318":
                    yield from ((node.name, ast.literal_eval(word)) for word in mark.args)


def unfinished() -> list[str]:
    """What is wrong between checklist and tests: lines without a test, marks without a line."""
    known = {line.id for line in lines()}
    shown = marked_tests()
    return [f"no test shows {name}" for name in sorted(known - shown.keys())] + [
        f"the checklist has no line {name}: {shown[name]}" for name in sorted(shown.keys() - known)
    ]


# ------------------------------------------------------------------ the plugin

_passed: dict[str, list[bool]] = defaultdict(list)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the report of each test carry the lines that it shows, from other processes too."""
    for item in items:
        for mark in item.iter_markers("ps318"):
            item.user_properties.extend(("ps318", word) for word in mark.args)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather: a line holds if all its tests pass; one that was skipped shows nothing."""
    if report.when == "call" or not report.passed:
        for name, value in report.user_properties:
            if name == "ps318":
                _passed[str(value)].append(report.passed)


def _holds(line: Line) -> bool:
    results = _passed.get(line.id, [])
    return bool(results) and all(results)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the run fail if a line does, also one that no test showed."""
    if not hasattr(session.config, "workerinput") and not all(map(_holds, lines())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print every line."""
    failed = 0
    group = ""
    for line in lines():
        if line.group != group:
            group = line.group
            terminalreporter.write_sep("-", group)
        results, holds = _passed.get(line.id, []), _holds(line)
        failed += not holds
        word = ("declined" if line.declined else "pass") if holds else "FAIL"
        count = f"{sum(results)} of {len(results)} tests"
        what = f"{line.text}: {line.declined}" if line.declined else line.text
        terminalreporter.write_line(
            f"{word:9}{line.section:14}{_NEEDS[line.need]:12} {what} ({count})",
            green=holds,
            red=not holds,
        )
    total = len(lines())
    terminalreporter.write_line(f"{total - failed} of {total} lines hold")
