"""Hostile pixel data among good images: all good ones are shown, the others bounded and told."""

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

import real
from every_syntax import ELE, Example
from hostile_pixels import good_examples, hostile_examples
from memory import MEGABYTE, PixelWatch, peaks
from service import PATIENT_ENV, RunningArchive, wait_until
from wado.archive.derived import Derived
from wado.archive.health import waiting
from wado.archive.journal import Journals
from wado.archive.retrieve import item
from wado.bootstrap import open_archive
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.records import Topic
from wado.settings import load_settings
from wado.transcode_settings import DISPLAYABLE

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1200)]

ATTEMPTS = 2
MOST_PIXELS = 1 << 24
ADDRESS_SPACE = 1 << 30
LIMITS = {
    **PATIENT_ENV,
    "WADO_TRANSCODE__MAX_PIXELS": str(16 * MOST_PIXELS),  # beyond what its memory is enough for
    "WADO_TRANSCODE__MEMORY_BYTES": str(ADDRESS_SPACE),
    # What hostile ones take too much of is memory, even where the machine is busy.
    "WADO_TRANSCODE__FRAME_TIMEOUT_S": "100",
    "WADO_TRANSCODE__VIDEO_TIMEOUT_S": "240",
    "WADO_SERVER__PIXEL_TIMEOUT_S": "100",
    "WADO_TRANSCODE__ATTEMPTS": str(ATTEMPTS),
    "WADO_SERVER__MAX_PIXELS": str(MOST_PIXELS),
    "WADO_SERVER__PIXEL_MEMORY_BYTES": str(ADDRESS_SPACE),
    "WADO_CONSUMER__LOAD_INTERVAL_S": "0.2",
    "WADO_WEBWORKER__QUIET_S": "0.3",
}
SERVICE_RSS = 700 * MEGABYTE
QUEUE_TIMEOUT_S = 600
ANSWER_TIMEOUT_S = 240
AT_A_TIME = 4
ANSWERS = {200, 404, 406, 413, 503}
"""404: frames can't be told apart; 406: they can't be decoded; 413: too large to be rendered; 503:
they would take more than there is now."""


@dataclass
class Attacked:
    """The archive after the attack, and what was sent."""

    running: RunningArchive
    archive: Archive
    journals: Journals
    good: list[Example]
    hostile: list[Example]
    pids: dict[str, int]
    watch: PixelWatch
    callers: list[Any]
    statuses: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Answers that should not have been."""

    def get(self, example: Example, resource: str, accept: str) -> requests.Response:
        study, series, instance = example.uids
        url = f"{self.running.dicomweb}/studies/{study}/series/{series}/instances/{instance}"
        return requests.get(
            f"{url}{resource}", headers={"accept": accept}, timeout=ANSWER_TIMEOUT_S
        )

    def store(self, example: Example) -> None:
        answer = requests.post(
            f"{self.running.dicomweb}/studies",
            data=example.data,
            headers={"content-type": "application/dicom"},
            timeout=ANSWER_TIMEOUT_S,
        )
        self.statuses[example.name] = answer.status_code

    @property
    def kept(self) -> list[Example]:
        """The hostile ones that were stored."""
        return [e for e in self.hostile if self.statuses[e.name] == 200]

    def derived(self, example: Example) -> Derived:
        ref = InstanceRef.of("default", *example.uids)
        return item(self.journals, ref).entry.derived

    def lag(self) -> int:
        topics = (Topic.STORAGE, Topic.TRANSCODE, Topic.TRANSCODE_LOG)
        return sum(waiting(self.archive, topic) for topic in topics)


@pytest.fixture(scope="module")
def bait() -> Iterator[tuple[str, list[Any]]]:
    """An address that no playlist may make anybody connect to, and who did."""
    callers: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, address = server.accept()
                    callers.append(address)
                    connection.close()

        Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers


@pytest.fixture(scope="module")
def attacked(
    bait: tuple[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    for program in ("dcmtk", "ffmpeg"):
        real.require(program)
    address, callers = bait
    root = tmp_path_factory.mktemp("hostile") / "data"
    with ExitStack() as stack:
        running = stack.enter_context(RunningArchive(root, env=LIMITS))
        watch = stack.enter_context(PixelWatch(running))
        archive = stack.enter_context(open_archive(load_settings(storage={"root": root})))
        found = Attacked(
            running, archive, Journals(archive.store), good_examples(), hostile_examples(address),
            running.pids(), watch, callers,
        )  # fmt: skip
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(found.store, in_turn(found.hostile, found.good)))
        yield found


def in_turn(hostile: list[Example], good: list[Example]) -> Iterator[Example]:
    """The good ones spread among the others."""
    step = len(hostile) // len(good) + 1
    for number, example in enumerate(hostile):
        yield example
        if number % step == 0 and number // step < len(good):
            yield good[number // step]
    yield from good[(len(hostile) - 1) // step + 1 :]


@pytest.fixture(scope="module")
def worked(attacked: Attacked) -> Attacked:
    """The same, once everybody has asked for all of it and the queue has done its work."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda example: asked(attacked, example), attacked.kept))
    wait_until(lambda: attacked.lag() == 0, timeout_s=QUEUE_TIMEOUT_S, reason="the queue is empty")
    return attacked


def asked(attacked: Attacked, example: Example) -> None:
    """Ask for what makes the server decode."""
    for resource, accept in (
        ("/frames/1", f"application/octet-stream; transfer-syntax={ELE}"),
        ("/rendered", "image/jpeg"),
        ("/metadata", "application/dicom+json"),
        ("", f"application/dicom; transfer-syntax={ELE}"),
    ):
        at = f"{example.name} {resource}"
        try:
            answer = attacked.get(example, resource, accept)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as e:
            if resource:  # an instance may turn out to be damaged while it is sent
                attacked.problems.append(f"{at}: {e}")
            continue
        told = answer.status_code == 200 or is_explained(answer.json()["reason"])
        if answer.status_code not in ANSWERS or not told:
            attacked.problems.append(f"{at}: {answer.status_code} {answer.text}")


def is_explained(reason: str) -> bool:
    return len(reason) > 10 and "Error(" not in reason and "Traceback" not in reason


def test_all_is_taken_or_refused_with_a_reason(attacked: Attacked):
    assert set(attacked.statuses.values()) <= {200, 409}
    assert len(attacked.kept) > 80, Counter(attacked.statuses.values())
    assert all(attacked.statuses[example.name] == 200 for example in attacked.good)


def test_answers_tell_what_is_the_matter(worked: Attacked):
    assert not worked.problems, "\n".join(worked.problems)


def test_good_images_are_shown_and_converted(worked: Attacked):
    for example in worked.good:
        accept = f"application/octet-stream; transfer-syntax={ELE}"
        frame = worked.get(example, "/frames/1", accept)
        assert frame.status_code == 200, (example.name, frame.text)
        assert worked.get(example, "/rendered", "image/png").status_code == 200, example.name
        derived = worked.derived(example)
        assert not derived.failures, (example.name, derived.failures)
        assert bool(derived.copies) == (example.transfer_syntax_uid not in DISPLAYABLE)


def test_hostile_ones_are_given_as_they_came(worked: Attacked):
    for example in worked.kept:
        if example.transfer_syntax_uid == ELE or example.data:
            answer = worked.get(example, "", "application/dicom; transfer-syntax=*")
            assert answer.content == example.data, example.name


def test_each_is_converted_or_recorded_with_a_reason(worked: Attacked):
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in worked.archive.warehouse.query("SELECT * FROM dicom_transcode_log"):
        rows.setdefault(row["sop_instance_uid"], []).append(row)
    failed = 0
    for example in worked.kept:
        if example.transfer_syntax_uid in DISPLAYABLE:
            continue
        derived = worked.derived(example)
        assert derived.copies or derived.failures, f"{example.name}: nothing is on record"
        told = rows[example.uids[2]]
        assert len(told) <= ATTEMPTS, (example.name, told)
        for reason in derived.failures.values():
            assert is_explained(reason), (example.name, reason)
            assert reason in {row["reason"] for row in told}, example.name
            assert "/" + "etc/" not in reason
            failed += 1
    assert failed > 60


@pytest.mark.parametrize(
    "name",
    ["deflated 512 MB", "JPEG XL of 60000", "JPEG XL of 60000, unsaid", "JPEG 2000 of 60000",
     "JPEG 2000 of 60000, unsaid", "JPEG of 60000", "HTJ2K of 60000", "uncompressed overflow",
     "JPEG XL, cut to 1/2", "deflated, cut to 1/2", "uncompressed, cut to 1/2",
     "native called JPEG XL", "playlist called 1.2.840.10008.1.2.4.100",
     "concatenation called 1.2.840.10008.1.2.4.107", "no fragment"],
)  # fmt: skip
def test_these_have_no_copy(worked: Attacked, name: str):
    """No picture can be right of what is not there."""
    example = next(e for e in worked.hostile if e.name == name)
    if example in worked.kept:
        assert not worked.derived(example).copies


def test_what_takes_too_much_memory_is_tried_again_and_then_recorded(worked: Attacked):
    example = next(e for e in worked.hostile if e.name == "deflated 512 MB")
    rows = worked.archive.warehouse.query(
        "SELECT * FROM dicom_transcode_log WHERE sop_instance_uid = ? ORDER BY attempt",
        [example.uids[2]],
    )
    assert [row["attempt"] for row in rows] == [*range(1, ATTEMPTS + 1)]
    assert not any(row["succeeded"] for row in rows)
    assert all("memory" in row["reason"] for row in rows)


def test_a_decoder_that_panics_ends_nothing(worked: Attacked):
    """That of RLE is written in Rust: its panic is no `Exception`."""
    example = next(e for e in worked.hostile if e.name == "RLE of a pixel too many")
    answer = worked.get(example, "/rendered", "image/png")
    assert answer.status_code == 200 or "RLE segment" in answer.json()["reason"], answer.text


def test_nobody_was_called(worked: Attacked):
    """What a video names is not opened."""
    assert not worked.callers


def test_the_archive_is_as_alive_as_before(worked: Attacked):
    assert worked.running.pids() == worked.pids, "a service was started again"
    wait_until(worked.running.ready, timeout_s=60, reason="ready")
    assert worked.lag() == 0
    assert "Traceback" not in worked.running.log
    wait_until(
        lambda: not list(worked.running.root.rglob("*.part")), timeout_s=60, reason="no half file"
    )


def test_memory_was_bounded(worked: Attacked):
    for name, size in peaks(worked.running).items():
        assert size < SERVICE_RSS, (name, size // MEGABYTE)
    assert 0 < worked.watch.peak < ADDRESS_SPACE


def test_what_comes_next_is_stored_and_converted(worked: Attacked, tmp_path: Path):
    example = next(e for e in hostile_examples("http://127.0.0.1:9") if "cut" not in e.name)
    again = next(e for e in good_examples() if e.transfer_syntax_uid not in DISPLAYABLE)
    for each in (example, again):
        worked.store(each)
    wait_until(lambda: worked.lag() == 0, timeout_s=QUEUE_TIMEOUT_S, reason="the queue is empty")
    assert worked.derived(again).copies
