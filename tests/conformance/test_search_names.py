"""Names of all character sets are found by search (PS3.18 §8.8), and come back in Unicode."""

import re
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

import pydicom
import pytest
from pydicom.dataset import Dataset

from searched import Searched
from service import RunningArchive, wait_until

pytestmark = pytest.mark.filterwarnings("ignore")

_CHARSETS = 17


@pytest.fixture(scope="module")
def charsets(running: RunningArchive, corpus: Path) -> list[tuple[Searched, Dataset]]:
    """Each file in a tenant of its own: some share their UIDs."""
    sent: list[tuple[Searched, Dataset]] = []
    for number, path in enumerate(sorted((corpus / "charset").glob("*.dcm"))):
        ds = pydicom.dcmread(path, force=True)
        if "SOPInstanceUID" in ds:
            searched = Searched(running.dicomweb, f"charset-{number}")
            assert searched.store(path.read_bytes()) == 200, path
            sent.append((searched, ds))
    assert len(sent) > _CHARSETS - 3
    for searched, _ in sent:
        wait_until(partial(_has_studies, searched), timeout_s=120, reason="catalogued")
    return sent


def _has_studies(searched: Searched) -> bool:
    return bool(searched.rows("studies"))


def _groups(ds: Dataset) -> list[str]:
    ds.decode()
    return [group.rstrip("^ ") for group in str(ds.PatientName).split("=")]


def _each(
    check: Callable[[Searched, list[str]], None], sent: list[tuple[Searched, Dataset]]
) -> None:
    for searched, ds in sent:
        check(searched, _groups(ds))


@pytest.mark.ps318(
    "search-charsets",
)
def test_names_come_back_in_unicode(charsets: list[tuple[Searched, Dataset]]):
    def check(searched: Searched, groups: list[str]) -> None:
        (row,) = searched.rows("studies")
        (name,) = row["00100010"]["Value"]
        given = [name.get(key, "") for key in ("Alphabetic", "Ideographic", "Phonetic")]
        assert [text.rstrip("^ ") for text in given if text] == [g for g in groups if g]

    _each(check, charsets)


@pytest.mark.ps318(
    "search-charsets",
)
def test_names_are_found_by_each_group(charsets: list[tuple[Searched, Dataset]]):
    def check(searched: Searched, groups: list[str]) -> None:
        for group in filter(None, groups):
            queries = [group, group.upper(), f"{group[:2]}*", f"*{group[-2:]}", f"?{group[1:]}"]
            queries += ["=".join(groups)]
            for query in queries:
                assert searched.rows(f"studies?PatientName={quote(query)}"), query
                assert searched.rows(f"instances?00100010={quote(query)}"), query
        assert not searched.rows(f"studies?PatientName={quote(groups[0])}x")

    _each(check, charsets)


@pytest.mark.ps318(
    "search-charsets",
)
def test_names_are_found_as_people_write_them(charsets: list[tuple[Searched, Dataset]]):
    def check(searched: Searched, groups: list[str]) -> None:
        for group in filter(None, groups):
            words = [word for word in re.split(r"[\^ ]+", group) if word]
            for order in permutations(words[:3]):
                query = quote(" ".join(order))
                assert searched.rows(f"studies?fuzzymatching=true&PatientName={query}"), order
            cut = quote(" ".join(normalize("NFKC", word)[:3] for word in words))
            assert searched.rows(f"studies?fuzzymatching=true&PatientName={cut}"), words

    _each(check, charsets)
