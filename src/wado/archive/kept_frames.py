"""Frames that were made a moment ago: who reads one in ranges has it made once."""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

_MAX_BYTES = 16 << 20
_LARGEST = 8 << 20


class FrameKey(NamedTuple):
    """Which frame: of which file, by its digest, in which transfer syntax."""

    digest: str
    number: int
    transfer_syntax_uid: str


class KeptFrames:
    """Keeps frames that were made, those used last, in bounded memory; used from any thread."""

    def __init__(self, *, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[FrameKey, tuple[bytes, str]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: FrameKey) -> tuple[bytes, str] | None:
        """Give a frame and its Photometric Interpretation, if it is kept."""
        with self._lock:
            found = self._frames.get(key)
            if found is not None:
                self._frames.move_to_end(key)
        return found

    def keep(self, key: FrameKey, made: tuple[bytes, str]) -> None:
        """Keep a frame; one that is large for the memory is not."""
        if len(made[0]) > min(_LARGEST, self._max_bytes // 2):
            return
        with self._lock:
            if key in self._frames:
                return
            self._frames[key] = made
            self._bytes += len(made[0])
            while self._bytes > self._max_bytes:
                _, (frame, _) = self._frames.popitem(last=False)
                self._bytes -= len(frame)
