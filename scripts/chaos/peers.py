"""Four ways to send images: two C-STORE senders that others wrote, our own, and STOW-RS."""

import http.client
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos.images import SOP_CLASS, TRANSFER_SYNTAX, Image
from chaos.ledger import Answer, Verdict
from wado.errors import AssociationRejected, MalformedPDU, Unavailable
from wado.services.association import Association, Peer

TIMEOUT_S = 60.0
_OUT_OF_RESOURCES = 0xA700
_TRY_AGAIN_HTTP = frozenset({502, 503, 504})
_BOUNDARY = "chaos-run-boundary"
_CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
_DCMTK_ANSWER = re.compile(r"Received Store Response \((.*)\)")

Tell = Callable[[Image, Answer], None]
Deliver = Callable[[Sequence[Image], Tell], None]
"""Sends images and tells what was answered to each; those it does not name got no answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the archive is."""

    dicomweb: str
    dimse: str
    aet: str

    @property
    def peer(self) -> Peer:
        """The receiver."""
        return Peer.parse(f"{self.aet}@{self.dimse}")


def of_status(status: int, took_s: float) -> Answer:
    """Judge the status of a C-STORE response: only success and A7xx are in order here."""
    if status == 0:
        return Answer(Verdict.ACKNOWLEDGED, "0000", took_s)
    retryable = status & 0xFF00 == _OUT_OF_RESOURCES
    return Answer(Verdict.RETRYABLE if retryable else Verdict.FINDING, f"{status:04X}", took_s)


def lost(what: str, began: float) -> Answer:
    """No answer: the connection was lost, refused, or silent."""
    return Answer(Verdict.RETRYABLE, what, time.monotonic() - began)


# ------------------------------------------------------------------ C-STORE


def by_wado(target: Target) -> Deliver:
    """C-STORE by our own sender, several images on an association."""

    def deliver(images: Sequence[Image], tell: Tell) -> None:
        began = time.monotonic()
        pair = (SOP_CLASS, TRANSFER_SYNTAX)
        at = 0
        try:
            with Association(
                target.peer, [pair], calling_ae_title="CHAOS_WADO", timeout_s=TIMEOUT_S
            ) as association:
                for at, image in enumerate(images):  # noqa: B007 - used when it breaks
                    began = time.monotonic()
                    with _in_memory(image.data_set()) as (descriptor, size):
                        uid = image.sop_instance_uid
                        response = association.store(pair, uid, descriptor, size)
                    tell(image, of_status(response.status or 0, time.monotonic() - began))
        except AssociationRejected as e:
            verdict = Verdict.RETRYABLE if e.is_transient else Verdict.FINDING
            tell(images[at], Answer(verdict, f"rejected: {_reason(e)}"))
        except (Unavailable, MalformedPDU) as e:
            tell(images[at], lost(_reason(e), began))

    return deliver


def _reason(e: Exception) -> str:
    return str(e).rpartition(": ")[2]


@contextmanager
def _in_memory(data: bytes) -> Iterator[tuple[int, int]]:
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor, len(data)
    finally:
        os.close(descriptor)


def by_pynetdicom(target: Target) -> Deliver:
    """C-STORE by pynetdicom."""
    from pydicom import dcmread  # noqa: PLC0415 - slow to load

    ae = _calling("CHAOS_PYNETDCM")
    ae.add_requested_context(SOP_CLASS, TRANSFER_SYNTAX)
    ae.dimse_timeout = ae.acse_timeout = ae.network_timeout = TIMEOUT_S
    ae.connection_timeout = TIMEOUT_S

    def deliver(images: Sequence[Image], tell: Tell) -> None:
        began = time.monotonic()
        peer = target.peer
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title)
        if not association.is_established:
            tell(images[0], lost("no association", began))
            return
        for image in images:
            began = time.monotonic()
            try:
                response = association.send_c_store(dcmread(BytesIO(image.part10())))
            except RuntimeError:  # the association went away before this one
                tell(image, lost("association lost", began))
                return
            if "Status" not in response:
                tell(image, lost("association lost", began))
                return
            tell(image, of_status(response.Status, time.monotonic() - began))
        association.release()

    return deliver


def _calling(ae_title: str) -> Any:
    """Make an AE of pynetdicom that closes its sockets.

    By itself it closes none that can't be shut down before: of a connection that was refused, or
    reset. They are left to the garbage collector, which complains at some later test.
    """
    from pynetdicom import AE  # noqa: PLC0415 - slow to load
    from pynetdicom.transport import AssociationSocket  # noqa: PLC0415 - likewise

    class Closing(AssociationSocket):
        def _shutdown_socket(self) -> None:
            sock = self.socket
            super()._shutdown_socket()
            if sock is not None:
                sock.close()

    class Calling(AE):
        def _create_socket(self, assoc: Any, address: Any, _tls: Any) -> AssociationSocket:
            return Closing(assoc, address=address)

    return Calling(ae_title)


def by_dcmtk(target: Target) -> Deliver:
    """C-STORE by DCMTK's storescu, one image at a time, so that its answer is known."""

    def deliver(images: Sequence[Image], tell: Tell) -> None:
        for image in images:
            tell(image, _by_storescu(target.peer, image))

    return deliver


def _by_storescu(peer: Peer, image: Image) -> Answer:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        path = Path(folder, "image.dcm")
        path.write_bytes(image.part10())
        arguments = [
            "storescu", "-v", "-aet", "CHAOS_DCMTK", "-aec", peer.ae_title,
            "-to", "10", "-ta", str(int(TIMEOUT_S)), "-td", str(int(TIMEOUT_S)),
            peer.host, str(peer.port), str(path),
        ]  # fmt: skip
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
    found = _DCMTK_ANSWER.search(done.stdout + done.stderr)
    took_s = time.monotonic() - began
    if found is None:
        return lost("no response", began)
    if found[1] == "Success":  # what becomes of the association after it does not matter
        return Answer(Verdict.ACKNOWLEDGED, "Success", took_s)
    retryable = "OutOfResources" in found[1]
    return Answer(Verdict.RETRYABLE if retryable else Verdict.FINDING, found[1], took_s)


# ------------------------------------------------------------------ STOW-RS


def by_stow(target: Target) -> Deliver:
    """STOW-RS, several images in a request."""

    def deliver(images: Sequence[Image], tell: Tell) -> None:
        began = time.monotonic()
        try:
            status, body = _post(target.dicomweb, images)
        except (OSError, http.client.HTTPException) as e:
            for image in images:
                tell(image, lost(type(e).__name__, began))
            return
        took_s = time.monotonic() - began
        for image in images:
            tell(image, of_store_response(status, body, image.sop_instance_uid, took_s))

    return deliver


def _post(dicomweb: str, images: Sequence[Image]) -> tuple[int, bytes]:
    parts = [
        f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        + image.part10()
        + b"\r\n"
        for image in images
    ]
    url = urlsplit(dicomweb)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
    try:
        connection.request(
            "POST",
            f"{url.path}/studies",
            body=b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()]),
            headers={
                "Content-Type": _CONTENT_TYPE,
                "Accept": "application/dicom+json",
            },
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def of_store_response(status: int, body: bytes, uid: str, took_s: float) -> Answer:
    """Judge what the answer to a store request says of one instance (PS3.18 §10.5.3)."""
    if status in _TRY_AGAIN_HTTP:
        return Answer(Verdict.RETRYABLE, f"HTTP {status}", took_s)
    if status not in {200, 202, 409}:
        return Answer(Verdict.FINDING, f"HTTP {status}: {body[:200]!r}", took_s)
    module = json.loads(body)
    for item in _items(module, "00081199"):
        if _value(item, "00081155") == uid:
            reason = _value(item, "00081196")
            verdict = Verdict.FINDING if reason else Verdict.ACKNOWLEDGED
            text = f"HTTP {status}" + (f", warning {reason:04X}" if reason else "")
            return Answer(verdict, text, took_s)
    for item in _items(module, "00081198"):
        if _value(item, "00081155") == uid:
            answer = of_status(int(_value(item, "00081197")), took_s)
            return Answer(answer.verdict, f"HTTP {status}, {answer.text}", took_s)
    return Answer(Verdict.FINDING, f"HTTP {status} does not name the instance", took_s)


def _items(module: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = module.get(tag, {}).get("Value", [])
    return found


def _value(item: dict[str, Any], tag: str) -> Any:
    return item.get(tag, {}).get("Value", [None])[0]


DELIVERIES: dict[str, Callable[[Target], Deliver]] = {
    "C-STORE (wado)": by_wado,
    "STOW-RS": by_stow,
    "C-STORE (pynetdicom)": by_pynetdicom,
    "C-STORE (DCMTK)": by_dcmtk,
}
"""Ways to send, by the name under which the ledger counts them."""
