"""The way of an image that viewers can't show, through real services, to a copy that they can."""

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import imagecodecs
import numpy as np
import orjson
import pytest
from pydicom.dataset import Dataset

import backing_kafka
import copies
import synthetic
import videos
from backing import s3 as s3_server
from contract.stores import s3_endpoint, s3_place
from copies import EXPLICIT_VR_LITTLE_ENDIAN, HTJ2K_RPCL, deflated, derived_of
from service import PATIENT_ENV, RunningArchive, wait_until
from wado.adapters.message_log.kafka import KafkaMessageLog
from wado.archive.conversion import convert
from wado.archive.copies import Converted, Converter
from wado.archive.health import VIDEO_GROUP
from wado.archive.transcode_rules import is_video
from wado.ports import Archive
from wado.records import Topic, TranscodeMeta
from wado.services import transcode_worker
from wado.services.association import Peer
from wado.services.storescu import send
from wado.services.transcode_worker import GROUP

WITHIN_S = 120.0


@pytest.fixture(params=["files", "s3"])
def running(
    request: pytest.FixtureRequest, tmp_path: Path, run_folder: Path
) -> Iterator[RunningArchive]:
    """An archive of its own, all services as processes."""
    env = {**PATIENT_ENV}
    if request.param == "s3":
        place = s3_place(s3_endpoint(run_folder), f"copies/{uuid4().hex}")
        env |= {
            **s3_server.CREDENTIALS,
            "WADO_STORAGE__URL": place.shown,
            "WADO_STORAGE__S3_ENDPOINT": place.endpoint,
            "WADO_STORAGE__S3_ALLOW_HTTP": "true",
        }
    with RunningArchive(tmp_path / "data", env=env) as archive:
        yield archive
        assert "worker died" not in archive.log


def get(url: str, accept: str) -> tuple[bytes, str]:
    """Body and media type."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers["Content-Type"]


def metadata_of(archive: RunningArchive, ds: Any) -> dict[str, Any]:
    url = f"{archive.dicomweb}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/metadata"
    found: list[dict[str, Any]] = orjson.loads(get(url, "application/dicom+json")[0])
    return found[0]


def test_from_reception_to_a_frame_that_viewers_show(
    running: RunningArchive, tmp_path: Path
) -> None:
    native = synthetic.multi_frame(3, rows=40, columns=56)
    sent = {
        "deflated": deflated(native),
        "JPEG XL": copies.jpeg_xl(synthetic.multi_frame(2, study="xl")),
        "broken": copies.broken(synthetic.ct(study="broken")),
        "shown": synthetic.ct(study="shown"),
    }
    folder = tmp_path / "sent"
    folder.mkdir()
    for name, ds in sent.items():
        (folder / f"{name}.dcm").write_bytes(synthetic.part10(ds))
    assert not send([folder], Peer.parse(running.destination), associations=1).failures

    def has_copy(ds: Any) -> bool:
        with suppress(HTTPError):  # a moment ago it was not catalogued
            named = metadata_of(running, ds).get("00083002", {}).get("Value", [])
            return HTJ2K_RPCL in named
        return False

    for name in ("deflated", "JPEG XL"):
        wait_until(
            lambda name=name: has_copy(sent[name]),  # type: ignore[misc]
            timeout_s=WITHIN_S,
            reason=f"metadata name the copy of {name}",
        )
    ds = sent["deflated"]
    instance = (
        f"{running.dicomweb}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )
    body, media_type = get(f"{instance}/frames/2", f"image/jphc;transfer-syntax={HTJ2K_RPCL}")
    assert media_type.startswith("image/jphc")
    assert np.array_equal(imagecodecs.htj2k_decode(body), native.pixel_array[1])
    original, _ = get(instance, 'multipart/related; type="application/dicom"; transfer-syntax=*')
    assert synthetic.data_set(ds) in original

    def rows() -> list[dict[str, Any]]:
        sql = "SELECT sop_instance_uid, succeeded, reason FROM dicom_transcode_log"
        return query(running, sql)

    uids = {str(sent[name].SOPInstanceUID) for name in ("deflated", "JPEG XL", "broken")}
    wait_until(
        lambda: {row["sop_instance_uid"] for row in rows()} == uids,
        timeout_s=WITHIN_S,
        reason="rows of three in the warehouse",
    )
    found = {row["sop_instance_uid"]: row for row in rows()}
    assert found[str(sent["deflated"].SOPInstanceUID)]["succeeded"]
    assert found[str(sent["JPEG XL"].SOPInstanceUID)]["succeeded"]
    failed = found[str(sent["broken"].SOPInstanceUID)]
    assert not failed["succeeded"]
    assert "JPEG XL" in failed["reason"]


def query(running: RunningArchive, sql: str) -> list[dict[str, Any]]:
    """Ask the warehouse of an archive that runs."""
    from wado.adapters.warehouse.duckdb import DuckdbWarehouse  # noqa: PLC0415

    path = running.root / "warehouse" / "warehouse.duckdb"
    with closing(DuckdbWarehouse(path, patience_s=120)) as warehouse:
        return warehouse.query(sql)


# ------------------------------------------------------------------ several webworkers


@pytest.fixture
def on_kafka(archive: Archive, run_folder: Path) -> Iterator[list[Archive]]:
    """The same archive as two machines see it, its log on Kafka."""
    url = backing_kafka.shared_kafka(run_folder)
    # Who gets no time of a busy machine is not missed: what it has in hand would be done twice.
    cluster = backing_kafka.prepared(
        f"{url}/{backing_kafka.new_prefix()}", session_timeout_s=60, publish_timeout_s=60
    )
    with ExitStack() as stack:
        yield [
            replace(archive, log=stack.enter_context(closing(KafkaMessageLog(cluster))))
            for _ in range(2)
        ]


def test_webworkers_share_the_queue_and_make_each_copy_once(
    on_kafka: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = threading.Lock()
    made: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    both = threading.Event()

    def counted(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        number = next(n for n, a in enumerate(on_kafka) if a.log is converter.archive.log)
        with lock:
            made[number][meta.sop_instance_uid] += 1
            if all(made.values()):
                both.set()
        # The work lasts until both have a part of it; it goes on, or nobody could be given one.
        both.wait(1.5)
        return convert(converter, meta)

    monkeypatch.setattr(transcode_worker, "convert", counted)
    datasets: list[Dataset] = []

    def more(count: int) -> None:
        series = [deflated(ds) for ds in synthetic.ct_series(count, study=str(len(datasets)))]
        copies.store(on_kafka[0], *series)
        datasets.extend(series)

    more(40)
    stop = Event()
    services = [Thread(target=transcode_worker.run, args=(a, stop)) for a in on_kafka]
    for service in services:
        service.start()
    try:
        for _ in range(20):  # there is work as long as one of them takes to come
            if both.wait(6):
                break
            more(8)
        wait_until(
            lambda: all(derived_of(on_kafka[0], ds).copies for ds in datasets),
            timeout_s=WITHIN_S,
            reason="all copies are there",
        )
        wait_until(
            lambda: on_kafka[0].log.lag(Topic.TRANSCODE, GROUP) == 0,
            timeout_s=WITHIN_S,
            reason="all is committed",
        )
    finally:
        stop.set()
        for service in services:
            service.join()
    assert all(made[number] for number in (0, 1)), "both had a part in it"
    assert set((made[0] + made[1]).values()) == {1}
    assert on_kafka[0].log.lag(Topic.TRANSCODE_LOG, "wado-warehouse") == len(datasets)


def test_a_video_is_converted_while_images_go_on(
    on_kafka: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the group of videos, which has an offset of its own in each partition."""
    made: list[tuple[int, bool]] = []
    began, images_are_done = threading.Event(), threading.Event()

    def watched(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        number = next(n for n, a in enumerate(on_kafka) if a.log is converter.archive.log)
        made.append((number, is_video(meta.transfer_syntax_uid)))
        if made[-1][1]:
            began.set()
            assert images_are_done.wait(WITHIN_S), "the video holds up images"
        return convert(converter, meta)

    monkeypatch.setattr(transcode_worker, "convert", watched)
    log = on_kafka[0].log
    video = videos.instance(videos.content("mpeg2.ts"), videos.MPEG_2_HIGH)
    images = [deflated(ds) for ds in synthetic.ct_series(20)]
    copies.store(on_kafka[0], video)
    stop = Event()
    services = [Thread(target=transcode_worker.run, args=(a, stop)) for a in on_kafka]
    for service in services:
        service.start()
    try:
        assert began.wait(WITHIN_S)
        copies.store(on_kafka[0], *images)
        wait_until(
            lambda: all(derived_of(on_kafka[0], ds).copies for ds in images),
            timeout_s=WITHIN_S,
            reason="all images have copies",
        )
        assert not derived_of(on_kafka[0], video).copies
        assert log.lag(Topic.TRANSCODE, VIDEO_GROUP), "the video is not committed"
        images_are_done.set()
        for group in (GROUP, VIDEO_GROUP):
            wait_until(
                lambda group=group: log.lag(Topic.TRANSCODE, group) == 0,  # type: ignore[misc]
                timeout_s=WITHIN_S,
                reason=f"{group} has committed all",
            )
    finally:
        images_are_done.set()
        stop.set()
        for service in services:
            service.join()
    assert list(derived_of(on_kafka[0], video).copies) == [videos.H264]
    assert [is_of_video for _, is_of_video in made].count(True) == 1
    assert len(made) == 1 + len(images)
    assert not list(log.dead_letters(Topic.TRANSCODE))


def test_what_a_dead_webworker_had_in_hand_goes_to_another(
    on_kafka: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that ends with a batch in hand leaves it to the next one, whole."""
    datasets = [deflated(ds) for ds in synthetic.ct_series(6)]
    copies.store(on_kafka[0], *datasets)
    reading = on_kafka[0].log.read(Topic.TRANSCODE, GROUP, Event(), max_messages=3)
    batch = next(reading)
    reading.close()  # type: ignore[attr-defined]  # it is a generator
    assert batch.messages
    stop = Event()
    service = Thread(target=transcode_worker.run, args=(on_kafka[1], stop))
    service.start()
    try:
        wait_until(
            lambda: all(derived_of(on_kafka[0], ds).copies for ds in datasets),
            timeout_s=WITHIN_S,
            reason="all copies are there",
        )
    finally:
        stop.set()
        service.join()
    assert EXPLICIT_VR_LITTLE_ENDIAN not in derived_of(on_kafka[0], datasets[0]).copies
