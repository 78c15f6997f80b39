"""Documents say what is there: modules, commands, settings, decisions; and nothing harmful."""

import re
from pathlib import Path

import pytest

import check_files
import generate_docs

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
SOURCE = generate_docs.SOURCE
MODULES = [path.relative_to(SOURCE).as_posix() for path in generate_docs.modules()]
DECISIONS = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")])


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("module", MODULES)
def test_the_architecture_names_each_module(module: str):
    assert f"`{module}`" in (DOCS / "architecture.md").read_text(encoding="utf-8")


def test_the_architecture_names_no_module_that_is_gone():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE))
    assert named - set(MODULES) == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_commands_in_documents_exist(page: Path):
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
    assert named - _targets() == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_between_documents_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_make_target_for_people_has_a_help_text():
    text = (PROJECT / "Makefile").read_text()
    helped = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert _targets() - helped == {"hooks", "system-packages"}


@pytest.mark.parametrize("name", sorted(generate_docs.PAGES))
def test_generated_documents_are_up_to_date(name: str):
    assert (DOCS / name).read_text(encoding="utf-8") == generate_docs.PAGES[name](), "make docs"


def test_decisions_are_numbered_and_listed():
    assert [name[:4] for name in DECISIONS] == [f"{n:04}" for n in range(1, len(DECISIONS) + 1)]
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == DECISIONS


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_has_its_parts_on_at_most_one_page(name: str):
    text = (DOCS / "adr" / name).read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.splitlines()) <= 60


def test_nothing_harmful_is_committed():
    """Registry addresses, private keys, large files, machine paths, notes to self."""
    found = [
        f"{_name(path)}: {fault}"
        for path in check_files.committed_files()
        for fault in check_files.faults(path)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "# TO" + "DO later",
        "see registry.npm" + "js.org/x",
        '"resolved": ' + '"http://x"',
    ],
)
def test_the_check_of_files_sees(tmp_path: Path, text: str):
    path = tmp_path / "package-lock.json"
    path.write_text(f"first line\n{text}\n")
    assert [fault[:2] for fault in check_files.faults(path)] == ["2:"]


def test_the_check_of_files_passes_what_is_clean_and_refuses_what_is_large(tmp_path: Path):
    path = tmp_path / "image.png"
    path.write_bytes(b"\0clean")
    assert list(check_files.faults(path)) == []
    path.write_bytes(bytes(check_files.LARGEST_BYTES + 1))
    assert len(list(check_files.faults(path))) == 1
