"""The readers of the transcode queue: images, videos beside them, and the service around both."""

from dataclasses import replace
from threading import Event, Thread

import pytest

import synthetic
from copies import deflated, derived_of, store
from service import wait_until
from steps import batches
from wado.archive.conversion import convert
from wado.archive.copies import Converted, Converter
from wado.archive.health import waiting
from wado.archive.transcode_rules import VIDEO_TARGET, is_video
from wado.errors import InvalidMessage
from wado.ports import Archive, Message
from wado.records import Topic, TranscodeMeta
from wado.services import transcode_worker, webworker
from wado.services.transcode_worker import GROUP
from wado.settings import LogSettings, WebworkerSettings


def test_a_long_video_holds_up_no_image(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    began, goes_on, stop = Event(), Event(), Event()
    made: list[str] = []

    def long(converter: Converter, meta: TranscodeMeta) -> Converted | None:
        if is_video(meta.transfer_syntax_uid):
            began.set()
            assert goes_on.wait(60)
        made.append(meta.sop_instance_uid)
        return convert(converter, meta)

    monkeypatch.setattr(transcode_worker, "convert", long)
    images = [deflated(synthetic.ct(series=str(n))) for n in range(2)]
    store(archive, *images)
    batch = next(batches(archive, Topic.TRANSCODE, "looks"))
    image = TranscodeMeta.from_json(batch.messages[0].body)
    video = replace(image, sop_instance_uid="1.2.3", transfer_syntax_uid=VIDEO_TARGET)
    archive.log.publish([Message(Topic.TRANSCODE, image.key, b"{}")])
    archive.log.publish([Message(Topic.TRANSCODE, image.key, video.to_json()) for _ in range(2)])
    store(archive, *(later := [deflated(synthetic.ct(series="later"))]))
    service = Thread(target=transcode_worker.run, args=(archive, stop))
    service.start()
    try:
        assert began.wait(60)
        wait_until(
            lambda: archive.log.lag(Topic.TRANSCODE, GROUP) == 0, timeout_s=60, reason="all is read"
        )
        assert all(derived_of(archive, ds).copies for ds in [*images, *later])
        assert "1.2.3" not in made
        assert waiting(archive, Topic.TRANSCODE)
        goes_on.set()
        wait_until(
            lambda: not waiting(archive, Topic.TRANSCODE), timeout_s=60, reason="the video is read"
        )
    finally:
        goes_on.set()
        stop.set()
        service.join()
    assert sorted(set(made)) == sorted({"1.2.3", *(m.SOPInstanceUID for m in [*images, *later])})
    letters = list(archive.log.dead_letters(Topic.TRANSCODE))
    assert len(letters) == 1, "what is no message is rejected once"


def test_a_fault_in_the_work_on_videos_ends_the_service(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = transcode_worker._read_queue

    def faulty(archive: Archive, stop: Event, part: transcode_worker.Part, *, workers: int) -> None:
        if part.has_video:
            raise RuntimeError("a fault")
        read(archive, stop, part, workers=workers)

    monkeypatch.setattr(transcode_worker, "_read_queue", faulty)
    with pytest.raises(RuntimeError, match="a fault"):
        transcode_worker.run(archive, Event())


def test_the_webworker_reads_the_queue(archive: Archive) -> None:
    ds = deflated(synthetic.ct())
    store(archive, ds)
    stop = Event()
    settings = (WebworkerSettings(quiet_s=0), LogSettings(), stop)
    service = Thread(target=webworker.run, args=(archive, *settings))
    service.start()
    try:
        wait_until(
            lambda: bool(derived_of(archive, ds).copies), timeout_s=60, reason="the copy is there"
        )
    finally:
        stop.set()
        service.join()


def test_a_failure_of_the_queue_ends_the_webworker(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_archive: Archive, _stop: Event) -> None:
        raise InvalidMessage("a fault of ours")

    monkeypatch.setattr(transcode_worker, "run", fail)
    with pytest.raises(InvalidMessage):
        webworker.run(archive, WebworkerSettings(quiet_s=0), LogSettings(), Event())
