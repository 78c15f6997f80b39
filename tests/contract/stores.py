"""What tests of instance stores share: instances by number, and the stores themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import backing_services
from backing import s3 as s3_server
from backing.program import Program
from wado.adapters.instance_store.filesystem import FilesystemInstanceStore
from wado.adapters.instance_store.s3 import S3InstanceStore
from wado.adapters.instance_store.s3_bucket import Bucket, Place
from wado.dicom.part10 import file_meta
from wado.dicom.uids import InstanceRef
from wado.errors import WadoError
from wado.ports import InstanceStore, StoreOutcome

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def ref(number: int, series: str = "1.2.3") -> InstanceRef:
    return InstanceRef.of("clinic", "1.2", series, f"1.2.3.{number}")


def part10(body: bytes, number: int = 1, syntax: str = EXPLICIT) -> bytes:
    return file_meta(CT, f"1.2.3.{number}", syntax) + body


def put(
    store: InstanceStore, number: int, data: bytes, *, replace: bool = False
) -> StoreOutcome | WadoError:
    incoming = store.receive(ref(number))
    incoming.write([data[:10], memoryview(data)[10:]])
    return store.commit([incoming], replace=replace)[0]


def read(store: InstanceStore, path: str) -> bytes:
    with store.open(path) as file:
        return file.read()


@dataclass(frozen=True, slots=True)
class Kept:
    """A store, and all that it keeps anywhere: names of files or objects, also of ours."""

    store: InstanceStore
    everything: Callable[[], list[str]]


def files_below(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def on_disk(root: Path, *, durable: bool = True) -> Kept:
    return Kept(FilesystemInstanceStore(root, durable=durable), lambda: files_below(root))


def s3_endpoint(run_folder: Path) -> str:
    """Address of the S3 server of this run."""

    def start(folder: Path) -> tuple[list[Program], dict[str, str]]:
        program, endpoint = s3_server.server(folder)
        return [program], {"endpoint": endpoint}

    endpoint: str = backing_services.shared(run_folder, "s3", start)["endpoint"]
    s3_server.make_bucket(endpoint)
    return endpoint


def s3_place(endpoint: str, prefix: str, *, timeout_s: float = 10.0) -> Place:
    return Place(
        s3_server.BUCKET,
        prefix,
        endpoint,
        region="us-east-1",
        allow_http=True,
        access_key_id="test",
        secret_access_key="test",
        timeout_s=timeout_s,
    )


def on_s3(place: Place, root: Path) -> Kept:
    bucket = Bucket(place)

    def everything() -> list[str]:
        return [*(o.path for o in bucket.walk("")), *files_below(root)]

    return Kept(S3InstanceStore(bucket, root), everything)
