"""What attackers send, the ways in, and what must hold afterwards."""

import http.client
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import synthetic
from dimse import CT_ID, RawPeer, pdata, store_request
from memory import MEGABYTE, flat
from service import RunningArchive, files_below, wait_until
from wado.dicom.command import Command
from wado.dicom.part10 import file_meta
from wado.dicom.pdu import COMMAND, LAST
from wado.services.association import Peer

GROWTH = 60 * MEGABYTE
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
BOUNDARY = "hostile"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
END = f"\r\n--{BOUNDARY}--\r\n".encode()
UNDEFINED = 0xFFFFFFFF
NOBODY = synthetic.ct()


@contextmanager
def unharmed(archive: RunningArchive, growth: int = GROWTH) -> Iterator[None]:
    """Assert that the same processes run and answer, and hold neither memory nor partial files."""
    with flat(archive, growth) as grown:
        yield
        wait_until(archive.ready, timeout_s=60, reason="ready")
        wait_until(
            lambda: not files_below(archive.root, "*.part"), timeout_s=60, reason="no partial file"
        )
    told = ", ".join(f"{name} {size / MEGABYTE:.0f}" for name, size in sorted(grown.items()))
    print(f"peaks grew by MB: {told}")  # noqa: T201 - figures (``pytest -s``)
    assert "Traceback" not in archive.log, archive.log[-4000:]


def files(archive: RunningArchive) -> set[Path]:
    """Instances that are visible."""
    return set(files_below(archive.root / "default", "*.dcm"))


# ------------------------------------------------------------------ ways in


def stow(
    archive: RunningArchive, body: Any, media_type: str = TYPE, **headers: str
) -> tuple[int, str]:
    """POST to the studies; status and text of the answer."""
    return http_request(
        archive, "POST", "/dicomweb/studies", body, **{"Content-Type": media_type, **headers}
    )


def http_request(
    archive: RunningArchive, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, str]:
    """Status and text of an answer; status 0 if the connection was closed without one."""
    connection = http.client.HTTPConnection("127.0.0.1", archive.http_port, timeout=120)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if isinstance(body, bytes):
            connection.putheader("Content-Length", str(len(body)))
        elif body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        try:
            for piece in [body] if isinstance(body, bytes) else body or ():
                chunked = not isinstance(body, bytes)
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if body is not None and not isinstance(body, bytes):
                connection.send(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (http.client.HTTPException, ConnectionError):
        return 0, ""
    finally:
        connection.close()


def dimse(
    archive: RunningArchive,
    data: bytes,
    sop_instance_uid: str,
    transfer_syntax_uid: str = EXPLICIT,
    **changes: Any,
) -> Command:
    """C-STORE of any bytes as a CT image; the response."""
    names: dict[str, Any] = {
        "affected_sop_class_uid": CT,
        "affected_sop_instance_uid": sop_instance_uid,
    }
    with RawPeer(Peer(archive.aet, archive.dimse_host, archive.dimse_port)) as peer:
        peer.socket.settimeout(120)
        peer.associate([("1.2.840.10008.1.1", EXPLICIT), (CT, transfer_syntax_uid)])
        peer.send(pdata((CT_ID, COMMAND | LAST, store_request(NOBODY, **{**names, **changes}))))
        for start in range(0, len(data), 100_000):
            peer.send(pdata((CT_ID, 0, data[start : start + 100_000])))
        peer.send(pdata((CT_ID, LAST, b"")))
        return peer.response()


# ------------------------------------------------------------------ hostile data sets


def element(tag: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """Write an element in Explicit VR Little Endian, with any length."""
    count = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, count) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, count) + value


ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)


class Hostile:
    """A data set of four identifying attributes, with something in between."""

    def __init__(
        self,
        name: str,
        *,
        before: bytes = b"",
        after: bytes = b"",
        last: bytes = b"",
        study: bytes = b"",
        sop: bytes = b"",
    ) -> None:
        self.sop_instance_uid = synthetic.uid("hostile", name)
        self.data = b"".join((
            before,
            element(0x00080016, b"UI", padded(CT.encode())),
            element(0x00080018, b"UI", padded(sop or self.sop_instance_uid.encode())),
            after,
            element(0x0020000D, b"UI", padded(study or synthetic.uid("study", name).encode())),
            element(0x0020000E, b"UI", padded(synthetic.uid("series", name).encode())),
            last,
        ))  # fmt: skip

    def part10(self, transfer_syntax_uid: str = EXPLICIT, data: bytes | None = None) -> bytes:
        """The same as a file."""
        uid = self.sop_instance_uid
        return file_meta(CT, uid, transfer_syntax_uid) + (self.data if data is None else data)


def padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def nested(levels: int, *, defined: bool) -> bytes:
    """Sequences in sequences."""
    if not defined:
        return (element(0x00400275, b"SQ", length=UNDEFINED) + ITEM) * levels
    value = b""
    for _ in range(levels):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = element(0x00400275, b"SQ", item)
    return value


def the_next_is_visible(running: RunningArchive, after: str) -> None:
    """Whatever becomes of it, the next image is visible soon."""
    good = synthetic.ct(study=f"after {after}")
    status, text = stow(running, HEAD + synthetic.part10(good) + END)
    assert status == 200, text
    path = f"/dicomweb/studies/{good.StudyInstanceUID}/metadata"
    wait_until(
        lambda: http_request(running, "GET", path)[0] == 200,
        timeout_s=150,
        reason="the next is visible",
    )


def deflate_bomb(name: str, megabytes: int) -> tuple[Hostile, bytes]:
    """A data set whose Pixel Data inflates to so much; and what it is deflated to."""
    hostile = Hostile(name)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = hostile.data + element(0x7FE00010, b"OW", length=megabytes * MEGABYTE)
    zeros = bytes(MEGABYTE)
    packed = packer.compress(head) + b"".join(packer.compress(zeros) for _ in range(megabytes))
    return hostile, packed + packer.flush()
