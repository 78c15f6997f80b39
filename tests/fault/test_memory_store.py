"""Bulk data of any size waits on the disk: memory stays flat, and nothing is left behind.

Short in the suite; ``WADO_TEST_LARGE=1`` sends instances of 4 GB.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import stow
from memory import MEGABYTE, flat, wait_settled
from service import RunningArchive, wait_until

SIZE = 4095 if os.environ.get("WADO_TEST_LARGE") == "1" else 128
"""Megabytes; a frame is of two."""
GROWTH = 60 * MEGABYTE
CLOSING = f"--{stow.BOUNDARY}--".encode()
MULTI_FRAME_WORD = "1.2.840.10008.5.1.4.1.1.7.3"


def bulk_head(media_type: str) -> bytes:
    return stow.message([stow.bulk("pixels", b"", media_type)]).removesuffix(b"\r\n" + CLOSING)


def native(name: str, megabytes: int) -> tuple[Any, Iterator[bytes]]:
    """Metadata, and Pixel Data in one part."""
    frames = megabytes // 2
    ds = stow.bare(
        name, MULTI_FRAME_WORD, Rows=1024, Columns=1024, NumberOfFrames=frames, BitsAllocated=16,
        BitsStored=16, HighBit=15, SamplesPerPixel=1, PixelRepresentation=0,
        PhotometricInterpretation="MONOCHROME2",
    )  # fmt: skip

    def body() -> Iterator[bytes]:
        yield stow.message([stow.metadata(stow.described(ds))]).removesuffix(CLOSING)
        yield bulk_head("application/octet-stream")
        for _ in range(2 * frames):
            yield bytes(MEGABYTE)
        yield b"\r\n" + CLOSING

    return ds, body()


def compressed(name: str, megabytes: int) -> tuple[Any, Iterator[bytes]]:
    """Metadata, and a part for each frame, padded to two megabytes."""
    image = stow.as_file(stow.picture(), "JPEG")
    ds = stow.bare(name, stow.TRUE_COLOR)

    def body() -> Iterator[bytes]:
        yield stow.message([stow.metadata(stow.described(ds))]).removesuffix(CLOSING)
        for _ in range(megabytes // 2):
            yield bulk_head("image/jpeg") + image
            yield bytes(2 * MEGABYTE)
            yield b"\r\n"
        yield CLOSING

    return ds, body()


@pytest.mark.parametrize("make", [native, compressed])
def test_bulk_data_is_stored_with_flat_memory(running: RunningArchive, make: Any):
    def store(name: str, megabytes: int) -> Any:
        ds, body = make(f"{name} {make.__name__}", megabytes)
        answer = requests.post(
            f"{running.dicomweb}/studies",
            data=body,
            headers={"content-type": stow.content_type(), "x-tenant": "bulk"},
            timeout=250,
        )
        assert answer.status_code == 200, (answer.text, answer.headers)
        return ds

    for n in range(4):  # each process does it once
        store(f"warm {n}", 8)
    wait_settled(running)  # what earlier tests stored is not this one's growth
    with flat(running, GROWTH) as growth:
        ds = store("large", SIZE)
    file = running.root / "bulk" / ds.StudyInstanceUID / ds.SeriesInstanceUID
    assert (file / f"{ds.SOPInstanceUID}.dcm").stat().st_size > (SIZE - 2) * MEGABYTE
    told = ", ".join(f"{n} {s / MEGABYTE:.1f}" for n, s in sorted(growth.items()))
    print(f"{make.__name__}: peaks grew by MB: {told}")  # noqa: T201 - figures (``pytest -s``)
    incoming = running.root / "incoming"
    wait_until(lambda: not list(incoming.iterdir()), timeout_s=60, reason="nothing is left")
