"""One server full of real files for all tests of DICOMweb."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomweb_site import Sent, Site, some_files
from service import RunningArchive
from serving import serving
from whole_corpus import Kept, store_all


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("site") / "data") as url:
        site = Site(url)
        with warnings.catch_warnings():  # not around the yield: filters are those of each test
            warnings.simplefilter("ignore")
            for path in some_files(corpus):
                answer = site.store(path.read_bytes())
                assert answer.status_code in (200, 409), (path, answer.status_code, answer.text)
                if answer.status_code == 200:
                    site.sent.append(Sent(path))
        assert len(site.sent) > 40
        yield site


@pytest.fixture(scope="session")
def ct(site: Site) -> list[Sent]:
    """The instances of the CT volume that were stored."""
    first = next(sent for sent in site.sent if "ct-volume" in sent.path.parts)
    return [sent for sent in site.sent if sent.uids[:2] == first.uids[:2]]


@pytest.fixture(scope="session")
def kept(
    running: RunningArchive,
    corpus: Path,
    manifest: list[dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Kept]:
    """Every file of the corpus that is an instance, in the running archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [corpus / row["path"] for row in manifest]
        return store_all(running.dicomweb, paths, tmp_path_factory.mktemp("completed"))
