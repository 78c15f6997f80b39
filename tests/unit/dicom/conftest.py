"""Real files to read: the corpus, and those bundled with pydicom."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from wado.dicom.part10 import read_file_meta
from wado.errors import CannotUnderstand

SLICES_OF_A_VOLUME = 2


@pytest.fixture(scope="session")
def real_files(corpus: Path) -> list[Path]:
    """Files of the corpus, of volumes only a few slices, and pydicom's own; nothing is fetched."""
    volumes = [corpus / "ct-volume", corpus / "mr-volume"]
    folders = [f for v in volumes for f in v.iterdir()]
    files = [p for f in folders for p in sorted(f.glob("*.dcm"))[:SLICES_OF_A_VOLUME]]
    files += [p for p in sorted(corpus.rglob("*.dcm")) if not any(v in p.parents for v in volumes)]
    return files + sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))


@pytest.fixture(scope="session")
def real_data_sets(real_files: list[Path]) -> list[tuple[Path, str, bytes]]:
    """Path, Transfer Syntax UID and bare data set of the real files that have File Meta."""
    data_sets = []
    for path in real_files:
        whole = path.read_bytes()
        try:
            meta = read_file_meta(whole)
        except CannotUnderstand:
            continue
        data_sets.append((path, meta.transfer_syntax_uid, whole[meta.data_set_offset :]))
    return data_sets


@pytest.fixture
def read_of() -> Callable[[bytes], Callable[[int, int], bytes]]:
    """Make the `read` of a file from its bytes."""
    return lambda whole: lambda offset, length: whole[offset : offset + length]
