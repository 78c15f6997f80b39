"""The program that reads and writes video, as a process that is held to limits.

It is given open files that have no names, and may open nothing else: what a video says is to be
read elsewhere, on this machine or in the network, is not.
"""

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import IO

from wado.errors import CannotUnderstand, CutShort, NotAcceptable, OutOfResources, Unavailable
from wado.transcode_settings import TranscodeSettings

_RUN = "from wado.archive.video_process import main; main()"
_POLL_S = 0.2
_READ_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 16
_TAIL_BYTES = 8192
_NOT_PASSED_ON = frozenset({"FFREPORT", "AV_LOG_FORCE_COLOR"})
"""Environment by which the program would write files, or colour its messages."""
_NO_MEMORY = re.compile(r"Cannot allocate memory|malloc of size \d+ failed")
_NO_SPACE = "No space left on device"
_SPEAKER = re.compile(r"^(\[[^]]*\] )+")
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) exceeds specified max pixel count (\d+)")
_FILE = re.compile(r"(file:)?/proc/self/fd/\d+:? ?")
_SAYS_NOTHING = re.compile(
    r"conversion failed!|last message repeated|error while decoding stream|warning mvs ",
    re.IGNORECASE,
)
"""Messages that follow the one that says why."""

LineReader = Callable[[str], None]


def url_of(fd: int) -> str:
    """Name an open file so that the program can seek in it."""
    return f"file:/proc/self/fd/{fd}"


@dataclass(frozen=True, slots=True)
class VideoProgram:
    """The program, and what it may take.

    Attributes
    ----------
    ffmpeg, ffprobe
        Paths.
    memory_bytes
        Address space of a process.
    timeout_s, deadline_s
        Seconds that all runs together may take, and when (`time.monotonic`) they must have ended.
    stop
        Set when the service is to end.
    """

    ffmpeg: str
    ffprobe: str
    memory_bytes: int
    timeout_s: float
    deadline_s: float
    stop: Event

    def run(
        self,
        command: Sequence[str],
        files: Sequence[int] = (),
        *,
        max_file_bytes: int = 0,
        each_line: LineReader | None = None,
    ) -> None:
        """Run a command to its end, which may take long.

        Parameters
        ----------
        command
            A program and its arguments.
        files
            Descriptors that it is given under the same numbers.
        max_file_bytes
            Most bytes of a file that it writes.
        each_line
            Gets each line that it prints; what it raises ends the command.

        Raises
        ------
        CannotUnderstand
            It failed; the text is the last that it said.
        CutShort
            It crashed, took too long or too much memory.
        OutOfResources
            The disk is full.
        Unavailable
            The service is to end, or no process can be started.
        """
        process = self._started(command, files, max_file_bytes)
        try:
            said = self._follow(process, _Lines(each_line))
            status = process.wait(max(self.deadline_s - monotonic(), _POLL_S))
        except subprocess.TimeoutExpired:
            raise self._too_long() from None
        finally:
            _end(process)
        if status:
            raise _failure(os.path.basename(command[0]), status, said)

    def _started(
        self, command: Sequence[str], files: Sequence[int], max_file_bytes: int
    ) -> "subprocess.Popen[bytes]":
        limits = (os.getpid(), self.memory_bytes, max_file_bytes)
        try:
            return subprocess.Popen(
                [sys.executable, "-c", _RUN, *map(str, limits), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=files,
                env={k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON},
                start_new_session=True,  # killed with all that it starts
            )
        except OSError as e:
            raise Unavailable(f"no process for video can be started: {e.strerror}") from e

    def _follow(self, process: "subprocess.Popen[bytes]", lines: "_Lines") -> bytes:
        """Read what it prints until it ends; the end of its messages."""
        tail = b""
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                self._check()
                has_ended = process.poll() is not None  # before: it may speak and end meanwhile
                ready = selector.select(_POLL_S)
                if not ready and has_ended:
                    break  # what it started, and left behind, holds its pipes open
                for key, _ in ready:
                    data = os.read(key.fd, _READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        lines.add(data)
                    else:
                        tail = (tail + data)[-_TAIL_BYTES:]
        return tail

    def _check(self) -> None:
        if self.stop.is_set():
            raise Unavailable("the service is stopping")
        if monotonic() > self.deadline_s:
            raise self._too_long()

    def _too_long(self) -> CutShort:
        return CutShort(f"the conversion of the video took over {self.timeout_s:g} s")


class _Lines:
    """Cuts what a program prints into lines."""

    def __init__(self, each_line: LineReader | None) -> None:
        self._each_line = each_line
        self._rest = b""

    def add(self, data: bytes) -> None:
        if self._each_line is None:
            return
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._each_line(line.decode("utf-8", "replace"))
        self._rest = rest[:_MAX_LINE_BYTES]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of a process and of what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        _close(pipe)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


def _failure(name: str, status: int, said: bytes) -> Exception:
    """Say in the words of the program why it failed."""
    text = said.decode("utf-8", "replace")
    if _NO_SPACE in text:
        return OutOfResources("the disk is full: the video can't be converted")
    if _NO_MEMORY.search(text):
        return CutShort(f"{name} needs more memory than it may take")
    if status < 0:
        return CutShort(f"{name} died of signal {-status}")
    if found := _TOO_LARGE.search(text):
        columns, rows, most = found.groups()
        return NotAcceptable(
            f"its frames are of {columns} x {rows} pixels, over {most} aren't decoded"
        )
    reason = last_message(text)
    return CannotUnderstand(
        "the video is damaged, or of a kind that can't be worked on "
        f"({name}{f': {reason}' if reason else f' failed with status {status}'})"
    )


def last_message(text: str) -> str:
    """Find the last line that says something, without who said it and of which file."""
    for line in reversed(text.replace("\r", "\n").splitlines()):
        message = _FILE.sub("", _SPEAKER.sub("", line.strip())).strip()
        if message and not _SAYS_NOTHING.match(message):
            return message[:300]
    return ""


def video_program(settings: TranscodeSettings, stop: Event) -> VideoProgram:
    """Find the program; its time begins to run.

    Raises
    ------
    NotAcceptable
        It isn't installed.
    """
    ffmpeg = shutil.which(settings.ffmpeg)
    beside = os.path.join(os.path.dirname(ffmpeg or ""), "ffprobe")
    ffprobe = shutil.which(beside) or shutil.which("ffprobe")
    if ffmpeg is None or ffprobe is None:
        missing = settings.ffmpeg if ffmpeg is None else "ffprobe"
        raise NotAcceptable(
            f"{missing} is not installed: video is converted by it (Debian: apt-get install "
            "ffmpeg); then `wado transcode --failed` tries again"
        )
    timeout_s = settings.video_timeout_s
    return VideoProgram(
        ffmpeg, ffprobe, settings.memory_bytes, timeout_s, monotonic() + timeout_s, stop
    )
