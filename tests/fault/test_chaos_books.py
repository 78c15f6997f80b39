"""The chaos run must see what is wrong: lost, doubled, strange, or answered as it must not be."""

import gc
import json
import socket
import warnings
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest

from chaos.images import Image, data_set_of
from chaos.ledger import Answer, Ledger, Verdict
from chaos.peers import Target, by_pynetdicom, of_status, of_store_response
from chaos.verify import Outcome

IMAGE = Image("study", "series", 1, 16)


def test_counting_sees_what_is_missing_strange_or_twice() -> None:
    outcome = Outcome()
    outcome.compare("stored", Counter(["a", "b"]), {"a", "b"})
    assert outcome.faults == []
    assert outcome.counts == {"stored": 2}
    outcome.compare("indexed", Counter(["a", "c", "c"]), {"a", "b"})
    assert outcome.faults == [
        "indexed: 1 missing: b",
        "indexed: 1 nobody's: c",
        "indexed: 1 more than once: c",
    ]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(0, Verdict.ACKNOWLEDGED), (0xA700, Verdict.RETRYABLE), (0x0111, Verdict.FINDING),
     (0xB000, Verdict.FINDING), (0xC000, Verdict.FINDING), (0x0110, Verdict.FINDING)],
)  # fmt: skip
def test_only_success_and_a700_are_in_order(status: int, verdict: Verdict) -> None:
    assert of_status(status, 0.1).verdict is verdict


def store_response(**items: int | None) -> bytes:
    def item(tag: str, reason: int | None) -> dict[str, object]:
        found: dict[str, object] = {"00081155": {"vr": "UI", "Value": [IMAGE.sop_instance_uid]}}
        return {**found, tag: {"vr": "US", "Value": [reason]}} if reason else found

    module = {}
    if "failed" in items:
        module["00081198"] = {"vr": "SQ", "Value": [item("00081197", items["failed"])]}
    if "stored" in items:
        module["00081199"] = {"vr": "SQ", "Value": [item("00081196", items["stored"])]}
    return json.dumps(module).encode()


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, store_response(stored=None), Verdict.ACKNOWLEDGED),
        (200, store_response(stored=0xB000), Verdict.FINDING),
        (200, store_response(), Verdict.FINDING),
        (202, store_response(failed=0xA700), Verdict.RETRYABLE),
        (409, store_response(failed=0x0111), Verdict.FINDING),
        (503, b"", Verdict.RETRYABLE),
        (502, b"", Verdict.RETRYABLE),
        (500, b"oops", Verdict.FINDING),
    ],
)
def test_store_responses_are_judged_by_instance(status: int, body: bytes, verdict: Verdict) -> None:
    assert of_store_response(status, body, IMAGE.sop_instance_uid, 0.1).verdict is verdict


def test_the_books_count_an_image_once_and_keep_every_answer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open(IMAGE)
    ledger.note("C-STORE", IMAGE, Answer(Verdict.RETRYABLE, "A700", 2.5))
    assert [e.image for e in ledger.unacknowledged] == [IMAGE]
    ledger.note("C-STORE", IMAGE, Answer(Verdict.ACKNOWLEDGED, "0000"))
    ledger.note("STOW-RS", IMAGE, Answer(Verdict.ACKNOWLEDGED, "HTTP 200"))
    ledger.note("STOW-RS", IMAGE, Answer(Verdict.FINDING, "HTTP 500"))
    assert ledger.unacknowledged == []
    assert (len(ledger.entries), ledger.resent) == (1, 1)
    assert len(ledger.findings) == 1
    assert ledger.slowest_s["C-STORE", "A700"] == 2.5
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["answer"] for line in lines] == ["A700", "0000", "HTTP 200", "HTTP 500"]


def test_images_are_the_same_each_time_and_differ_from_each_other() -> None:
    assert IMAGE.part10() == Image("study", "series", 1, 16).part10()
    other = Image("study", "series", 2, 16)
    assert IMAGE.data_set() != other.data_set()
    assert IMAGE.series_instance_uid == other.series_instance_uid
    assert data_set_of(IMAGE.part10()) == IMAGE.data_set()


@pytest.mark.parametrize("is_listening", [False, True])
def test_a_sender_that_finds_nobody_leaves_no_socket(*, is_listening: bool) -> None:
    """Left to the garbage collector it is blamed on a test that runs minutes later."""
    answers: list[Answer] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("", f"127.0.0.1:{server.getsockname()[1]}", "NOBODY")

        def hang_up() -> None:
            server.accept()[0].close()

        hanging_up = Thread(target=hang_up)
        if is_listening:
            hanging_up.start()
        else:
            server.close()
        gc.collect()  # what others left is not ours
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            by_pynetdicom(target)([IMAGE], lambda _, answer: answers.append(answer))
            gc.collect()
    if is_listening:
        hanging_up.join()
    assert [answer.verdict for answer in answers] == [Verdict.RETRYABLE]
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []
