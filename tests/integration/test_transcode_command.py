"""`wado transcode` and `wado verify` as an operator runs them, on real files."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydicom.dataset import Dataset

import copies
import real
import steps
import synthetic
import videos
from copies import EXPLICIT_VR_LITTLE_ENDIAN, HTJ2K_RPCL, deflated, derived_of, jpeg_xl
from service import RunningArchive, Service, wait_until
from steps import catalogue_all, load_all
from wado.archive.journal import Journals
from wado.archive.selection import Selection, views
from wado.archive.store import Reception, Source, Stored, store_group
from wado.ports import Archive
from wado.records import Topic
from wado.settings import Settings, load_settings
from wado.transcode_settings import DISPLAYABLE

pytestmark = pytest.mark.timeout(1200)  # commands one after the other, beside running services

LIMIT_S = 300
JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"
ALL = Selection()
FILES = (
    "syntaxes/wg04/*",
    "syntaxes/ctimage/*Process6_8*",
    "syntaxes/pydicom-data__liver_*deflate*",
    "syntaxes/pydicom-data__US1_J2KR.dcm",
    "syntaxes/pydicom__JPEG-lossy.dcm",
    "syntaxes/pydicom__image_dfl.dcm",
    "color/*YBR*",
    "multiframe/pydicom-data__emri_small_RLE.dcm",
    "nonimage/highdicom__sr_document.dcm",
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An archive that takes all SOP classes, and converts nothing when it comes."""
    return load_settings(
        storage={"root": tmp_path / "data", "unknown_sop_classes": True},
        transcode={"enabled": False},
    )


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """Run a command to its end, its output as text."""

    def run_it(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wado", *words, "--root", str(settings.storage.root)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
            cwd=tmp_path, env={**os.environ, "COLUMNS": "200", **env},
        )  # fmt: skip

    return run_it


def store_files(archive: Archive, paths: list[Path]) -> int:
    """Store what the archive takes of some files; how many."""
    count = 0
    for path in paths:
        reception = Reception(archive, "default", Source())
        try:
            reception.write(path.read_bytes())
            reception.finish()
        except Exception:  # noqa: BLE001 - files without preamble or UIDs
            reception.abort()
            continue
        (result,) = store_group(archive, Journals(archive.store), [reception])
        count += isinstance(result, Stored)
    catalogue_all(archive)
    return count


def store(archive: Archive, *datasets: Dataset) -> None:
    """Store images of the tenant `clinic`."""
    for ds in datasets:
        (steps if ds.file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN else copies).store(
            archive, ds
        )
    catalogue_all(archive)


def copies_of(archive: Archive) -> dict[tuple[str, str], str]:
    """Digest of each copy there is, by SOP Instance UID and transfer syntax."""
    journals = Journals(archive.store)
    return {
        (item.ref.sop_instance_uid, uid): copy.digest
        for view in views(archive, journals, ALL)
        for item in ALL.items(view)
        for uid, copy in item.entry.derived.copies.items()
    }


def files_of(archive: Archive) -> list[Path]:
    folder = archive.store.local_path("derived")
    assert folder is not None
    return sorted(folder.rglob("*.dcm"))


def status(run: Run) -> str:
    """What `wado status` says, once the warehouse has answered before its limit."""
    said = ""

    def has_answered() -> bool:
        nonlocal said
        said = run("status").stdout
        return "the warehouse can't be asked" not in said

    wait_until(has_answered, timeout_s=LIMIT_S, reason="the warehouse answers in time")
    return said


def number(text: str, what: str) -> int:
    """Read a number that stands before some words."""
    match = re.search(rf"(\d+) {what}", text)
    assert match, (what, text)
    return int(match[1])


def test_real_files(archive: Archive, run: Run, corpus: Path) -> None:
    """By the rules, then into a named transfer syntax; all is verified; then all is removed."""
    paths = [path for name in FILES for path in sorted(corpus.glob(name)) if path.is_file()]
    stored = store_files(archive, paths)
    assert stored > 15
    journals = Journals(archive.store)
    images = {
        item.ref.sop_instance_uid: item.entry.transfer_syntax_uid
        for view in views(archive, journals, ALL)
        for item in ALL.items(view)
        if item.entry.pixel is not None
    }
    unshown = sorted(uid for uid, syntax in images.items() if syntax not in DISPLAYABLE)
    assert unshown

    would = run("transcode", "--dry-run")
    assert would.returncode == 0, would.stderr
    assert number(would.stdout, "copies would be made") == len(unshown)
    assert copies_of(archive) == {}

    by_rules = run("transcode", "--workers", "2")
    assert by_rules.returncode == 0, by_rules.stdout + by_rules.stderr
    assert number(by_rules.stdout, "copies made") == len(unshown)
    assert number(by_rules.stdout, "instances looked at") == stored
    assert sorted(uid for uid, _ in copies_of(archive)) == unshown

    named = run("transcode", "--target", JPEG_LS)
    made, failed = number(named.stdout, "copies made"), number(named.stdout, "failed")
    there = number(named.stdout, "needed none")  # native, of what does not fit the target
    assert made + failed + there == sum(1 for syntax in images.values() if syntax != JPEG_LS)
    assert named.returncode == (1 if failed else 0)
    assert made > 10
    before = copies_of(archive)
    again = run("transcode", "--target", JPEG_LS)
    assert (number(again.stdout, "copies made"), again.returncode) == (0, 0)
    assert number(again.stdout, "needed none") == made + there
    assert copies_of(archive) == before
    assert len(files_of(archive)) == len(before)

    verified = run("verify", "--all", "--workers", "2")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    table = re.findall(
        r"^ *(copies|originals) +(\d+) +(\d+) +(\d+) *$", verified.stdout, re.MULTILINE
    )
    assert [row[:2] for row in table] == [
        ("copies", str(len(before))),
        ("originals", str(stored)),
    ]
    assert all(int(frames) > 10 and bad == "0" for _, _, frames, bad in table)

    assert (
        number(run("transcode", "--remove", "--target", JPEG_LS).stdout, "copies removed") == made
    )
    assert {uid for _, uid in copies_of(archive)}.isdisjoint({JPEG_LS})
    assert len(copies_of(archive)) == len(unshown)
    assert number(run("transcode", "--remove", "--dry-run").stdout, "copies would") == len(unshown)
    run("transcode", "--remove")
    assert (copies_of(archive), files_of(archive)) == ({}, [])
    assert len(list(archive.store.instances())) == stored


def test_what_failed_is_said_and_tried_again_when_asked(archive: Archive, run: Run) -> None:
    good, large = deflated(synthetic.ct()), deflated(synthetic.ct(series="other"))
    store(archive, good, large)
    pixels = str(int(large.Rows) * int(large.Columns) - 1)
    first = run("transcode", WADO_TRANSCODE__MAX_PIXELS=pixels)
    assert first.returncode == 1
    assert number(first.stdout, "failed") == 2
    assert f"failed: 2 x its frames have {int(pixels) + 1} pixels" in first.stdout
    second = run("transcode")
    assert (number(second.stdout, "copies made"), second.returncode) == (0, 0)
    assert "2 could not be made before: --failed tries them again" in second.stdout
    third = run("transcode", "--failed")
    assert (number(third.stdout, "copies made"), third.returncode) == (2, 0), third.stdout
    load_all(archive)
    rows = archive.warehouse.query("SELECT succeeded FROM dicom_transcode_log")
    assert sorted(row["succeeded"] for row in rows) == [False, False, True, True]
    said = status(run)
    assert re.search(r"last 24 h +2 +2", said), said
    assert "not made" not in said, "they were, later"


def test_status_tells_what_could_not_be_made(archive: Archive, run: Run) -> None:
    store(archive, copies.broken(synthetic.ct()), deflated(synthetic.ct(series="other")))
    assert run("transcode").returncode == 1
    load_all(archive)
    said = status(run)
    assert re.search(r"in all +1 +1", said), said
    assert re.search(r"not made: 1 x .* \(JPEG XL Lossless to High-Throughput JPEG 2000", said), (
        said
    )
    assert "not made" not in run("status", "--quick").stdout
    away = run("status", WADO_WAREHOUSE__URL="doris://wado@127.0.0.1:1/wado")
    assert "transcoding: the warehouse can't be asked" in away.stdout
    assert "clinic" in away.stdout, "the rest is shown all the same"


def test_only_what_is_named(archive: Archive, run: Run) -> None:
    first, second, third = (deflated(ds) for ds in synthetic.ct_series(3))
    other = deflated(synthetic.ct(study="other"))
    store(archive, first, second, third, other)
    uids = [str(first[name].value) for name in ("StudyInstanceUID", "SeriesInstanceUID")]
    one = run("transcode", *uids, str(second.SOPInstanceUID), "--tenant", "clinic")
    assert (number(one.stdout, "copies made"), one.returncode) == (1, 0), one.stdout + one.stderr
    assert set(copies_of(archive)) == {(str(second.SOPInstanceUID), HTJ2K_RPCL)}
    assert number(run("transcode", uids[0], "--tenant", "clinic").stdout, "copies made") == 2
    assert number(run("transcode", "--tenant", "nobody").stdout, "copies made") == 0
    assert derived_of(archive, other).copies == {}
    assert number(run("transcode").stdout, "copies made") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--target", JPEG_2000_LOSSY], "is lossy: say with --quality"),
        (["--target", JPEG_LS, "--quality", "80"], "is lossless: leave out --quality"),
        (["--target", "1.2.840.10008.1.2.4.100"], "can't be made"),
        (["--target", "x"], "not a UID"),
        (["--quality", "80"], "--quality goes with --target"),
        (["--remove", "--failed"], "--remove goes with"),
        (["--queue", "--workers", "2"], "--workers is of this process"),
        (["1.2.3"], "there is no studies/1.2.3"),
        (["--tenant", "../x"], "not a tenant id"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_line(
    archive: Archive, run: Run, words: list[str], reason: str
) -> None:
    archive.index.awaiting_description(1)
    done = run("transcode", *words)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_is_made_and_the_next_run_goes_on(
    archive: Archive, run: Run, settings: Settings, tmp_path: Path
) -> None:
    """However late Ctrl-C comes, the command is at work: a video's conversion does not end."""
    real.require("ffmpeg")
    video = videos.instance(videos.content("mpeg2.m2v"), videos.MPEG_2_MAIN)
    datasets = [*(deflated(ds) for ds in synthetic.ct_series(60)), video]
    store(archive, *datasets)
    command = Service(
        "transcode", "--root", str(settings.storage.root), "--workers", "2",
        log_path=tmp_path / "transcode.log",
        env={"WADO_TRANSCODE__FFMPEG": str(videos.hanging(tmp_path))},
    )  # fmt: skip
    command.start(ready=None)
    wait_until(lambda: bool(files_of(archive)), timeout_s=LIMIT_S, reason="a copy is there")
    assert command.process is not None
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(LIMIT_S) == 130, command.log
    command.stop()
    assert "the same command goes on from there" in command.log
    assert "Traceback" not in command.log
    made = number(command.log, "copies made")
    kept = copies_of(archive)
    assert len(kept) == made < len(datasets)
    rest = run("transcode", "--workers", "2")
    assert (number(rest.stdout, "copies made"), rest.returncode) == (len(datasets) - made, 0)
    assert number(rest.stdout, "needed none") == made
    assert kept.items() <= copies_of(archive).items()
    assert len(files_of(archive)) == len(datasets)
    assert run("verify", "--all").returncode == 0


# ------------------------------------------------------------------ beside running services


@pytest.fixture
def running(archive: Archive, settings: Settings, tmp_path: Path) -> Iterator[RunningArchive]:
    """The same archive with all its services, and images in it that nobody converted."""
    names = ("first", "second", "third")
    series = [deflated(ds) for name in names for ds in synthetic.ct_series(8, series=name)]
    store(archive, *series, jpeg_xl(synthetic.multi_frame(4, study="film")))
    with RunningArchive(
        settings.storage.root, env={"WADO_TRANSCODE__ENABLED": "false", "COLUMNS": "200"}
    ) as services:
        yield services


def test_the_webworkers_do_it(archive: Archive, running: RunningArchive, run: Run) -> None:
    ordered = run("transcode", "--queue")
    assert ordered.returncode == 0, ordered.stderr
    assert number(ordered.stdout, "copies ordered") == 25
    assert "`wado status` shows it" in ordered.stdout
    wait_until(lambda: len(copies_of(archive)) == 25, timeout_s=LIMIT_S, reason="all are made")
    assert number(run("transcode").stdout, "needed none") == 25

    def recorded() -> bool:
        return bool(re.search(r"in all +25 +0", run("status").stdout))

    wait_until(recorded, timeout_s=LIMIT_S, reason="the warehouse has them")


def test_how_the_queue_drains_is_shown_on_a_terminal(
    archive: Archive, running: RunningArchive, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # its other end is closed
            while data := os.read(ours, 4096):
                shown.extend(data)

    reader = Thread(target=read, daemon=True)
    reader.start()
    words = ["transcode", "--queue", "--root", str(running.root)]
    with subprocess.Popen(
        [sys.executable, "-m", "wado", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
        env={**running.env, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.wait(LIMIT_S) == 0, shown.decode()
    reader.join(60)
    assert not reader.is_alive()
    os.close(ours)
    text = shown.decode()
    assert "25 copies ordered" in text
    assert "/25" in text
    assert "the queue is empty" in text
    assert len(copies_of(archive)) == 25


def test_command_and_webworkers_at_the_same_time(
    archive: Archive, running: RunningArchive, run: Run
) -> None:
    """Both make the same copies: in the end each is there once, and right."""
    assert number(run("transcode", "--queue").stdout, "copies ordered") == 25
    done = run("transcode", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert number(done.stdout, "copies made") + number(done.stdout, "needed none") == 25
    wait_until(
        lambda: archive.log.lag(Topic.TRANSCODE, "wado-transcode") == 0,
        timeout_s=LIMIT_S,
        reason="the queue is empty",
    )
    assert len(copies_of(archive)) == len(files_of(archive)) == 25
    verified = run("verify", "--all")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_damaged_copy_is_found_and_made_anew(
    archive: Archive, running: RunningArchive, run: Run
) -> None:
    assert run("transcode", "--workers", "2").returncode == 0
    before = copies_of(archive)
    damaged = files_of(archive)[3]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    found = run("verify", "--all", "--no-originals")
    assert found.returncode == 1
    assert "WRONG: 1 x copy whose file is not as it was written" in found.stdout
    assert damaged.name.partition(".1.2.840.10008")[0] in found.stdout
    assert "originals" not in found.stdout
    assert copies_of(archive) == before, "nothing is mended unasked"
    mended = run("verify", "--all", "--repair")
    assert mended.returncode == 1
    assert "1 copies removed, 1 ordered anew" in mended.stdout
    wait_until(
        lambda: copies_of(archive).keys() == before.keys(), timeout_s=LIMIT_S, reason="it is back"
    )
    assert run("verify", "--all").returncode == 0


def test_the_same_sample_is_taken_again(archive: Archive, run: Run) -> None:
    store(archive, *(deflated(ds) for ds in synthetic.ct_series(9)))
    assert run("transcode", "--workers", "2").returncode == 0
    for _ in range(2):
        some = run("verify", "--sample", "4", "--seed", "11")
        assert some.returncode == 0, some.stdout
        assert re.search(r"copies +4 +4 +0", some.stdout), some.stdout
        assert re.search(r"originals +4 +4 +0", some.stdout), some.stdout
        assert "a sample, --seed 11 takes it again" in some.stdout


def test_statistics_over_http(archive: Archive, running: RunningArchive, run: Run) -> None:
    """What the statistics page shows, through real services."""
    broken = copies.broken(synthetic.ct(study="broken"))
    steps.store(archive, broken)  # the running consumer catalogues it: two of them would race
    wait_until(
        lambda: Journals(archive.store).view(steps.series_of(broken)) is not None,
        timeout_s=LIMIT_S,
        reason="it is catalogued",
    )
    assert run("transcode", "--workers", "2").returncode == 1

    def counted() -> dict[str, Any]:
        answer = subprocess.run(
            ["curl", "-fsS", "--retry", "60", "--retry-delay", "1",  # 503: the answer comes later
             "-H", "x-tenant: clinic", f"{running.http}/statistics/transcoding"],
            capture_output=True, check=True, timeout=LIMIT_S,
        )  # fmt: skip
        value: dict[str, Any] = json.loads(answer.stdout)
        return value

    expected = {(copies.DEFLATED_FRAMES, 24, 0), (copies.JPEG_XL_LOSSLESS, 1, 1)}

    def is_counted() -> bool:
        """Rows of several studies are loaded in any order."""
        keys = ("transfer_syntax_uid", "succeeded", "failed")
        return {tuple(c[key] for key in keys) for c in counted()["conversions"]} == expected

    wait_until(is_counted, timeout_s=LIMIT_S, reason="all is counted")
    said = counted()
    assert said["waiting"] == 0
    (failure,) = said["failures"]
    assert failure["count"] == 1
    assert failure["reason"]
