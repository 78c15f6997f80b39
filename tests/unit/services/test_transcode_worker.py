"""The transcode queue: one image never holds up the others, nothing is tried for ever."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import orjson
import pytest

import pixel_jobs
import synthetic
from attempts import Attempts, label_of, one, rows_of, some
from copies import HTJ2K_RPCL, broken, convert_all, deflated, derived_of, jpeg_xl, store
from service import wait_until
from steps import batches, load_all, series_of
from wado import vitals
from wado.archive.conversion import convert
from wado.archive.copies import Converted, Converter
from wado.archive.unfinished import Unfinished
from wado.errors import CutShort, OutOfResources, Unavailable
from wado.ports import Archive, Message, MessageLog
from wado.records import Topic, TranscodeMeta
from wado.services import transcode_worker
from wado.services.transcode_worker import GROUP, IMAGES, VIDEOS, Part


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode_worker, "_PAUSE_S", 0.01)
    monkeypatch.setattr(transcode_worker, "_KEEP_S", 60.0)


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[vitals.Metric, float]:
    """What is counted in this test."""
    counted: dict[vitals.Metric, float] = dict.fromkeys(vitals.METRICS, 0.0)

    def count(metric: vitals.Metric, amount: float = 1.0) -> None:
        counted[metric] += amount

    monkeypatch.setattr(vitals, "count", count)
    return counted


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(monkeypatch)


def reasons(archive: Archive) -> list[str]:
    """Reasons of dead letters."""
    return [letter.reason for letter in archive.log.dead_letters(Topic.TRANSCODE)]


def test_copies_are_made_and_told_of(archive: Archive, counts: dict[vitals.Metric, float]) -> None:
    good, many, bad = (
        deflated(synthetic.ct()),
        jpeg_xl(synthetic.multi_frame(4)),
        broken(synthetic.ct(series="bad")),
    )
    store(archive, good, many, bad)
    convert_all(archive)
    assert list(derived_of(archive, good).copies) == [HTJ2K_RPCL]
    assert derived_of(archive, many).copies[HTJ2K_RPCL].pixel.number_of_frames == 4
    assert "JPEG XL" in derived_of(archive, bad).failures[HTJ2K_RPCL]
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0
    load_all(archive)
    rows = archive.warehouse.query(
        "SELECT succeeded, count(*) AS n FROM dicom_transcode_log GROUP BY ALL ORDER BY succeeded"
    )
    assert rows == [{"succeeded": False, "n": 1}, {"succeeded": True, "n": 2}]
    assert counts["wado_transcodes"] == 2
    assert counts["wado_transcode_failures"] == 1
    assert counts["wado_transcode_frames"] == 5
    assert counts["wado_transcode_seconds"] > 0
    waiting = {ref for ref, _ in archive.index.awaiting_description(9)}
    assert {series_of(ds) for ds in (good, many, bad)} <= waiting


def test_messages_that_make_no_sense_are_dead_letters(archive: Archive) -> None:
    ds = deflated(synthetic.ct())
    store(archive, ds)
    batch = next(batches(archive, Topic.TRANSCODE, GROUP))
    value = orjson.loads(batch.messages[0].body)
    bad = [
        b"no JSON",
        b"{}",
        *(
            orjson.dumps({**value, **wrong})
            for wrong in (
                {"study_instance_uid": "../1"},
                {"tenant_id": "derived"},
                {"target_transfer_syntax_uid": "../../x"},
                {"quality": "best"},
                {"quality": 101},
                {"attempt": 0},
                {"requested_at": "yesterday"},
                {"digest": None},
                {"file_size": [1]},
            )
        ),
    ]
    archive.log.publish([Message(Topic.TRANSCODE, "k", body) for body in bad])
    convert_all(archive)
    assert len(reasons(archive)) == len(bad)
    assert HTJ2K_RPCL in derived_of(archive, ds).copies
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0


def test_what_is_asked_for_twice_is_made_once(archive: Archive, attempts: Attempts) -> None:
    (ds,) = some(1)
    store(archive, ds)
    (message,) = next(batches(archive, Topic.TRANSCODE, "test")).messages
    archive.log.publish([Message(Topic.TRANSCODE, message.key, message.body)] * 9)
    convert_all(archive)
    assert len(attempts.made) == 1
    assert derived_of(archive, ds).copies
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0


def test_what_was_cut_short_is_tried_again_behind_the_others(
    archive: Archive, attempts: Attempts
) -> None:
    first, *others = some(4)
    uid = str(first.SOPInstanceUID)
    attempts.failing[uid] = [CutShort("it died"), CutShort("it died")]
    store(archive, first, *others)
    convert_all(archive)
    assert [a for u, a in attempts.made if u == uid] == [1, 2, 3]
    assert [u for u, _ in attempts.made][-2:] == [uid, uid], "behind the others"
    assert derived_of(archive, first).copies
    assert rows_of(archive, first) == [(3, True, None)]


def test_what_is_always_cut_short_is_a_failure_after_some_attempts(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = archive.transcode.model_copy(update={"memory_bytes": 1 << 29, "attempts": 2})
    archive = replace(archive, transcode=limited)
    poison, good = some(2)
    store(archive, poison, good)
    made = convert
    calls: list[int] = []

    def dying(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        if meta.sop_instance_uid != str(poison.SOPInstanceUID):
            return made(converter, meta)
        calls.append(meta.attempt)

        class Dying:
            def run(self, *_: object, **__: object) -> None:
                raise CutShort("the process that worked on the pixels died (-9)")

        return made(replace(converter, pixels=Dying()), meta)  # type: ignore[arg-type]

    monkeypatch.setattr(transcode_worker, "convert", dying)
    convert_all(archive)
    assert calls == [1, 2]
    assert derived_of(archive, good).copies
    reason = derived_of(archive, poison).failures[HTJ2K_RPCL]
    assert "died (-9)" in reason
    assert rows_of(archive, poison) == [(1, False, reason), (2, False, reason)]


@pytest.mark.parametrize("failure", [Unavailable("away"), OutOfResources("disk full")])
def test_what_is_down_is_waited_for_and_nothing_is_lost(
    archive: Archive, attempts: Attempts, failure: Exception
) -> None:
    first, *others = some(3)
    attempts.failing[str(first.SOPInstanceUID)] = [failure, failure]
    store(archive, first, *others)
    for _ in range(2):
        with pytest.raises(type(failure)):
            one(archive)
        assert archive.log.lag(Topic.TRANSCODE, GROUP) == 3
    one(archive)
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 0
    assert all(derived_of(archive, ds).copies for ds in (first, *others))
    assert not reasons(archive)


class LogThatIsAway:
    """Takes no rows of the transcode log for some time."""

    def __init__(self, log: MessageLog, times: int) -> None:
        self._log = log
        self.times = times

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def publish(self, messages: Iterable[Message]) -> None:
        given = list(messages)
        if self.times and any(m.topic is Topic.TRANSCODE_LOG for m in given):
            self.times -= 1
            raise Unavailable("the log is away")
        self._log.publish(given)


def test_what_was_made_is_kept_until_it_can_be_announced(
    archive: Archive, attempts: Attempts, counts: dict[vitals.Metric, float]
) -> None:
    (ds,) = some(1)
    store(archive, ds)
    log = LogThatIsAway(archive.log, times=1)
    one(replace(archive, log=log))  # type: ignore[arg-type]
    assert len(attempts.made) == 1
    assert counts["wado_waits"] == 1
    assert derived_of(archive, ds).copies


def test_it_is_made_again_if_that_takes_too_long(
    archive: Archive, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcode_worker, "_KEEP_S", 0.1)
    (ds,) = some(1)
    store(archive, ds)
    log = LogThatIsAway(archive.log, times=99)
    away = replace(archive, log=log)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        one(away)
    assert not derived_of(archive, ds).copies
    log.times = 0
    one(away)
    assert len(attempts.made) == 2
    assert derived_of(archive, ds).copies


def test_copies_are_made_while_the_warehouse_is_away(archive: Archive) -> None:
    class Away:
        def __getattr__(self, name: str) -> object:
            raise Unavailable(f"the warehouse is away: {name}")

    (ds,) = some(1)
    store(archive, ds)
    convert_all(replace(archive, warehouse=Away()))  # type: ignore[arg-type]
    assert derived_of(archive, ds).copies
    assert archive.log.lag(Topic.TRANSCODE_LOG, "wado-warehouse") == 1
    load_all(archive)
    assert archive.warehouse.count("dicom_transcode_log") == 1


# ------------------------------------------------------------------ the service


def test_it_stops_within_seconds_and_goes_on_later(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = some(2)
    store(archive, *datasets)
    began, stop = Event(), Event()

    def long(converter: Converter, _meta: TranscodeMeta) -> Converted | None:
        began.set()
        assert converter.stop.wait(60)
        raise Unavailable("the service is stopping")

    monkeypatch.setattr(transcode_worker, "convert", long)
    service = Thread(target=transcode_worker.run, args=(archive, stop))
    service.start()
    assert began.wait(60)
    stop.set()
    service.join(120)
    assert not service.is_alive()
    monkeypatch.setattr(transcode_worker, "convert", convert)
    note = Unfinished(archive.store, label_of(archive))
    assert not note.was_cut_short, "nobody died"
    assert not note.deaths
    convert_all(archive)
    assert all(derived_of(archive, ds).copies for ds in datasets)


def test_what_was_asked_for_is_made_though_none_are_made_of_what_arrives(archive: Archive) -> None:
    ds, arriving = some(2)
    store(archive, ds)
    off = archive.transcode.model_copy(update={"enabled": False})
    archive = replace(archive, transcode=off)
    store(archive, arriving)
    assert archive.log.lag(Topic.TRANSCODE, GROUP) == 1
    stop = Event()
    service = Thread(target=transcode_worker.run, args=(archive, stop))
    service.start()
    try:
        wait_until(
            lambda: archive.log.lag(Topic.TRANSCODE, GROUP) == 0, timeout_s=60, reason="all is read"
        )
    finally:
        stop.set()
        service.join()
    assert derived_of(archive, ds).copies
    assert not derived_of(archive, arriving).copies


@pytest.mark.parametrize(
    ("part", "other"), [(IMAGES, VIDEOS), (VIDEOS, IMAGES)], ids=["images", "videos"]
)
def test_progress_of_each_part_is_seen_from_outside(
    part: Part, other: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(pixel_jobs.__file__).parent))
    board = vitals.Board(["webworker-1"])
    vitals.use(board.row("webworker-1"))

    def busy_s() -> tuple[float, float]:
        known = board.busy_s("webworker-1")
        return known[part.activity], known[other.activity]

    try:
        vitals.goes_on(part.activity)
        assert part.activity not in board.busy_s("webworker-1")
        with vitals.at(part.activity), vitals.at(other.activity):
            row = board.row("webworker-1")
            for each in (part, other):
                row[len(vitals.METRICS) + vitals.ACTIVITIES.index(each.activity)] -= 1000
            assert min(busy_s()) > 900
            pixels = transcode_worker._WatchedWorkers(
                part.activity, workers=1, timeout_s=60, max_memory_bytes=8 << 30
            )
            assert pixels.run(pixel_jobs.double, 2) == 4
            pixels.close()
            ours, others = busy_s()
            assert ours < 900 < others, "each has a clock of its own"
    finally:
        vitals.use(vitals.Board(["alone"]).row("alone"))
