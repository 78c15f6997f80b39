"""An archive served in this process, and derived copies made in it as the webworker makes them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import requests
from pydicom.dataset import Dataset

import synthetic
from service import wait_until
from serving import serving_archive
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converter
from wado.archive.derived import failure_line
from wado.archive.journal import Journals
from wado.archive.paths import derived_path, journal_path
from wado.archive.pixel_workers import PixelWorkers
from wado.archive.retrieve import Item
from wado.archive.wanted_copies import order
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.transcode_settings import TranscodeSettings

TENANT = "default"
MULTIPART_DICOM = 'multipart/related; type="application/dicom"'
LIMIT_S = 120
"""Longer than anything takes, however busy the machine is: also what the server does on pixels."""


@dataclass(slots=True)
class Sent:
    """An instance that the archive took, for a tenant."""

    data: bytes
    tenant_id: str = TENANT
    ds: Dataset = field(init=False)

    def __post_init__(self) -> None:
        self.ds = pydicom.dcmread(io.BytesIO(self.data))

    @property
    def ref(self) -> InstanceRef:
        """Its UIDs."""
        ds = self.ds
        uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
        return InstanceRef.of(self.tenant_id, *map(str, uids))


class CopiesSite:
    """Requests, and copies."""

    def __init__(self, url: str, archive: Archive, pixels: PixelWorkers) -> None:
        self.url = url
        self.base = f"{url}/dicomweb"
        self.archive = archive
        self.pixels = pixels
        self.journals = Journals(archive.store)
        self.session = requests.Session()
        self.session.headers.clear()
        self._converter = Converter(archive, self.journals, pixels, TranscodeSettings())

    def store(self, *datasets: Dataset, tenant_id: str = TENANT) -> list[Sent]:
        """Store by STOW-RS, and wait until they can be retrieved."""
        sent = [Sent(synthetic.part10(ds), tenant_id) for ds in datasets]
        for each in sent:
            self.store_file(each)
        return sent

    def store_file(self, sent: Sent) -> None:
        """Store a file, and wait until it can be retrieved."""
        answer = self.session.post(
            f"{self.base}/studies",
            data=sent.data,
            headers={"content-type": "application/dicom", "x-tenant": sent.tenant_id},
            timeout=LIMIT_S,
        )
        assert answer.status_code == 200, answer.text
        wait_until(lambda: self.has(sent), timeout_s=LIMIT_S, reason="the instance is catalogued")

    def has(self, sent: Sent) -> bool:
        """Whether the instance is in its journal."""
        view = self.journals.view(sent.ref.series)
        return view is not None and sent.ref.sop_instance_uid in view.entries

    def item(self, sent: Sent) -> Item:
        """Find an instance."""
        view = self.journals.view(sent.ref.series)
        assert view is not None
        return Item(sent.ref, view.entries[sent.ref.sop_instance_uid], view)

    def copy(self, sent: Sent, target_uid: str, quality: int = 0) -> bytes:
        """Make a copy, and announce it; its file."""
        found = self.item(sent)
        made = convert(self._converter, order(found.ref, found.entry, target_uid, quality))
        assert made is not None
        assert announce(self.archive, self.journals, [made])
        derived = self.item(sent).entry.derived
        assert target_uid in derived.copies, derived.failures
        self.refresh(sent)
        with self.archive.store.open(self.path_of(sent, target_uid)) as file:
            return bytes(file.read())

    def path_of(self, sent: Sent, target_uid: str) -> str:
        """Where the file of a copy is."""
        return derived_path(sent.ref, target_uid)

    def lose(self, sent: Sent, target_uid: str) -> None:
        """Take the file of a copy away; its journal does not know."""
        path = self.path_of(sent, target_uid)
        self.archive.store.delete([path])
        assert self.archive.store.version(path) is None

    def fail(self, sent: Sent, target_uid: str, reason: str) -> None:
        """Record that a copy can't be made."""
        line = failure_line(
            sent.ref.sop_instance_uid, self.item(sent).entry.digest, target_uid, reason
        )
        assert self.archive.store.append({journal_path(sent.ref.series): line})
        self.refresh(sent)

    def refresh(self, sent: Sent) -> None:
        """Have the server look at the series anew: for what it knows, it does so now and then."""
        answer = self.ask("GET", f"/{sent.ref.series.path}/metadata", tenant_id=sent.tenant_id)
        assert answer.status_code == 200

    def get(
        self, sent: Sent, rest: str = "", accept: str = "", **headers: str
    ) -> requests.Response:
        """GET below the path of an instance."""
        return self.ask("GET", f"/{sent.ref.path}{rest}", accept, sent.tenant_id, **headers)

    def ask(
        self, method: str, path: str, accept: str = "", tenant_id: str = TENANT, **headers: str
    ) -> requests.Response:
        """Ask for a path below the service."""
        wanted = {"accept": accept} if accept else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(
            method,
            f"{self.base}{path}",
            headers={"x-tenant": tenant_id, **wanted, **named},
            timeout=LIMIT_S,
        )


@contextmanager
def copies_site(root: Path, **server: object) -> Iterator[CopiesSite]:
    """Serve an archive below `root`, in which copies can be made."""
    server = {"pixel_timeout_s": LIMIT_S, **server}
    pixels = PixelWorkers(workers=1, timeout_s=LIMIT_S, max_memory_bytes=8 << 30)
    try:
        with serving_archive(root, **server) as (url, archive):
            yield CopiesSite(url, archive, pixels)
    finally:
        pixels.close()
