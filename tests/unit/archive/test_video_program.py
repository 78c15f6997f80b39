"""The program for video: held to limits, ended with all that it starts, and quoted in its words."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from time import monotonic

import pytest

from freezing import runs
from service import wait_until
from wado.archive.video_program import VideoProgram, last_message, url_of, video_program
from wado.errors import CannotUnderstand, CutShort, NotAcceptable, OutOfResources, Unavailable
from wado.transcode_settings import TranscodeSettings

GIB = 1 << 30
Script = Callable[..., str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Make a program of a few lines of shell; its path."""

    def make(lines: str, name: str = "ffmpeg") -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def program() -> VideoProgram:
    """One with all the time that it needs."""
    return VideoProgram("ffmpeg", "ffprobe", GIB, 200, monotonic() + 200, Event())


def pids_in(path: Path) -> list[int]:
    """Numbers that a script wrote into a file."""
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def test_lines_come_out_and_open_files_go_in(program: VideoProgram, script: Script):
    lines: list[str] = []
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as taken:
        given.write(b"one\ntwo\n")
        given.flush()
        source, result = (url_of(f.fileno()).removeprefix("file:") for f in (given, taken))
        command = script(f'cat {source}; echo "$1" > {result}')
        program.run(
            (command, "a word"),
            (given.fileno(), taken.fileno()),
            max_file_bytes=100,
            each_line=lines.append,
        )
        taken.seek(0)
        assert (lines, taken.read()) == (["one", "two"], b"a word\n")


def test_a_failure_is_told_in_its_words(program: VideoProgram, script: Script):
    loud = script("echo '[h264 @ 0x55] no frame!' >&2; echo 'Conversion failed!' >&2; exit 1")
    with pytest.raises(CannotUnderstand, match=r"damaged.*\(ffmpeg: no frame!\)$"):
        program.run((loud,))
    with pytest.raises(CannotUnderstand, match="failed with status 3"):
        program.run((script("exit 3"),))
    with pytest.raises(CannotUnderstand, match="can't be run"):
        program.run(("/nowhere/ffmpeg",))


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("echo 'av_malloc: Cannot allocate memory' >&2; exit 1", CutShort),
        ("kill -SEGV $$", CutShort),
        ("echo 'write: No space left on device' >&2; exit 1", OutOfResources),
    ],
)
def test_what_may_pass_later_is_told_from_what_stays(
    program: VideoProgram, script: Script, lines: str, error: type[Exception]
):
    with pytest.raises(error):
        program.run((script(lines),))


def test_a_program_that_hangs_is_killed_with_what_it_started(
    program: VideoProgram, script: Script, tmp_path: Path
):
    pids = tmp_path / "pids"
    hangs = script(f"sleep 600 & echo $$ $! > {pids}; wait")
    hasty = replace(program, timeout_s=8, deadline_s=monotonic() + 8)
    with pytest.raises(CutShort, match="took over 8 s"):
        hasty.run((hangs,), max_file_bytes=1000)
    assert len(pids_in(pids)) == 2
    wait_until(lambda: not any(map(runs, pids_in(pids))), timeout_s=60, reason="they are killed")


def test_one_that_leaves_another_behind_is_done(
    program: VideoProgram, script: Script, tmp_path: Path
):
    pids = tmp_path / "pids"
    program.run((script(f"sleep 600 & echo $! > {pids}"),), max_file_bytes=1000)
    (left,) = pids_in(pids)
    wait_until(lambda: not runs(left), timeout_s=60, reason="it is killed")


def test_it_is_given_up_when_the_service_stops(program: VideoProgram):
    Timer(0.3, program.stop.set).start()
    with pytest.raises(Unavailable, match="stopping"):
        program.run(("/bin/sleep", "600"))


def test_it_ends_with_the_service_even_if_that_is_killed(tmp_path: Path):
    code = (
        "import threading, time; from wado.archive.video_program import VideoProgram;"
        "VideoProgram('', '', 1 << 30, 600, time.monotonic() + 600, threading.Event())"
        ".run(('/bin/sleep', '601'))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as service:
        try:
            wait_until(lambda: bool(sleeping(service.pid)), timeout_s=60, reason="the program runs")
            (pid,) = sleeping(service.pid)
        finally:
            service.kill()
    wait_until(lambda: not runs(pid), timeout_s=60, reason="it ends with its parent")


def sleeping(parent: int) -> list[int]:
    """Children of a process that became another program."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if name == "sleep" and int(rest.split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def test_memory_and_files_are_limited(program: VideoProgram, script: Script):
    small = replace(program, memory_bytes=GIB)
    code = "x = bytearray(2 << 30)"
    with pytest.raises(CannotUnderstand, match="MemoryError"):
        small.run((sys.executable, "-c", code))
    with tempfile.TemporaryFile() as result:
        writes = script(f"head -c 100000 /dev/zero > /proc/self/fd/{result.fileno()}")
        with pytest.raises(CannotUnderstand, match="File too large"):
            program.run((writes,), (result.fileno(),), max_file_bytes=50_000)
        assert os.fstat(result.fileno()).st_size == 50_000


def test_what_a_reader_of_lines_raises_ends_it(program: VideoProgram, script: Script):
    def refuse(line: str) -> None:
        raise CannotUnderstand(f"too much: {line}")

    with pytest.raises(CannotUnderstand, match="too much: 0"):
        program.run((script("echo 0; sleep 600"),), each_line=refuse)


def test_one_line_without_end_takes_no_memory(program: VideoProgram, script: Script):
    lines: list[str] = []
    program.run((script("head -c 3000000 /dev/zero; echo; echo end"),), each_line=lines.append)
    assert lines[-1] == "end"
    assert max(map(len, lines)) < 1 << 18


def test_who_lacks_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for named in ("ffmpeg", str(tmp_path / "other")):
        with pytest.raises(NotAcceptable, match=r"is not installed.*apt-get install ffmpeg"):
            video_program(TranscodeSettings(ffmpeg=named), Event())


def test_the_one_that_is_named_is_taken_and_its_reader_beside_it(script: Script, tmp_path: Path):
    named, reader = script(""), script("", "ffprobe")
    found = video_program(
        TranscodeSettings(ffmpeg=named, memory_bytes=GIB, video_timeout_s=500), Event()
    )
    assert (found.ffmpeg, found.ffprobe, found.memory_bytes) == (named, reader, GIB)
    assert 0 < found.deadline_s - monotonic() <= 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ""),
        ("Conversion failed!\n", ""),
        ("[mov @ 0x1] moov atom not found\nfile:/proc/self/fd/7: Invalid data found\n",
         "Invalid data found"),
        ("[mpeg2video @ 0x5] ac-tex damaged at 13 0\n[mpeg2video @ 0x5] Warning MVs not available",
         "ac-tex damaged at 13 0"),
        ("frame=1\rframe=2\r[x @ 0x1] [error] broken\r\n  \n", "broken"),
        ("y" * 1000, "y" * 300),
    ],
)  # fmt: skip
def test_the_last_message_says_why(text: str, message: str):
    assert last_message(text) == message


def test_a_signal_that_is_sent_is_named(program: VideoProgram, script: Script):
    with pytest.raises(CutShort, match=f"signal {signal.SIGABRT.value}"):
        program.run((script("kill -ABRT $$"),))
