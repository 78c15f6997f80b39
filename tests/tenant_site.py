"""A tenant of the running archive, all to itself: stores by STOW-RS, asks by HTTP."""

import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pydicom
import requests
from pydicom.dataset import Dataset

from service import RunningArchive
from synthetic import part10

_FILES_OF_A_REQUEST = 20


@dataclass(slots=True)
class Stored:
    """A file that the archive took."""

    data: bytes
    name: str = ""
    ds: Dataset = field(init=False)

    def __post_init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.ds = pydicom.dcmread(io.BytesIO(self.data))

    @property
    def study_path(self) -> str:
        """Path of the study."""
        return f"/studies/{self.ds.StudyInstanceUID}"

    @property
    def series_path(self) -> str:
        """Path of the series."""
        return f"{self.study_path}/series/{self.ds.SeriesInstanceUID}"

    @property
    def path(self) -> str:
        """Path of the instance."""
        return f"{self.series_path}/instances/{self.ds.SOPInstanceUID}"


class TenantSite:
    """Requests as one tenant; nothing is asked for that the caller doesn't say, not even gzip."""

    def __init__(self, archive: RunningArchive, tenant_id: str) -> None:
        self.archive = archive
        self.base = archive.dicomweb
        self.tenant_id = tenant_id
        self.session = requests.Session()
        self.session.headers.clear()
        self.session.headers.update({"x-tenant": tenant_id, "accept-encoding": "identity"})

    def get(self, path: str, accept: str | None = None, **headers: str) -> requests.Response:
        """GET a path below the service, or a whole address."""
        return self.ask("GET", path, accept, **headers)

    def ask(
        self, method: str, path: str, accept: str | None = None, **headers: str
    ) -> requests.Response:
        """Send a request; underscores in names of headers become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"accept": accept} if accept is not None else {}
        url = path if path.startswith("http") else self.base + path
        return self.session.request(method, url, headers=named, timeout=60)

    def store(self, instances: Iterable[Dataset | bytes]) -> list[Stored]:
        """Store instances; those that the archive took."""
        files = [x if isinstance(x, bytes) else part10(x) for x in instances]
        taken: dict[str, Stored] = {}
        for start in range(0, len(files), _FILES_OF_A_REQUEST):
            for stored in self._store_some(files[start : start + _FILES_OF_A_REQUEST]):
                taken.setdefault(stored.path, stored)  # of the same UID, the first stays
        return list(taken.values())

    def _store_some(self, files: Sequence[bytes]) -> list[Stored]:
        head = b"\r\n--guid\r\nContent-Type: application/dicom\r\n\r\n"
        answer = self.session.post(
            f"{self.base}/studies",
            data=b"".join(head + data for data in files) + b"\r\n--guid--\r\n",
            headers={"content-type": 'multipart/related; type="application/dicom"; boundary=guid'},
            timeout=60,
        )
        assert answer.status_code in {200, 202, 409}, answer.text
        items = answer.json().get("00081199", {}).get("Value", [])
        uids = {item["00081155"]["Value"][0] for item in items}
        stored = []
        for data in files:
            try:
                one = Stored(data)
            except (pydicom.errors.InvalidDicomError, NotImplementedError):
                continue
            if str(one.ds.get("SOPInstanceUID", "")) in uids:
                stored.append(one)
        return stored


def parts_of(answer: requests.Response) -> list[tuple[dict[str, str], bytes]]:
    """Read a multipart answer as strict clients do: headers in lower case, and bytes."""
    kind = answer.headers["content-type"]
    assert kind.startswith('multipart/related; type="')
    delimiter = b"--" + kind.partition("boundary=")[2].encode()
    assert answer.content.startswith(delimiter + b"\r\nContent-Type: ")
    assert answer.content.endswith(b"\r\n" + delimiter + b"--\r\n")
    parts = []
    for text in answer.content.split(delimiter)[1:-1]:
        head, _, body = text.partition(b"\r\n\r\n")
        assert body.endswith(b"\r\n")
        lines = (line.partition(": ") for line in head.decode().split("\r\n") if line)
        parts.append(({name.lower(): value for name, _, value in lines}, body[:-2]))
    return parts
