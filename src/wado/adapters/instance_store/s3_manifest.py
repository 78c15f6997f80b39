"""What a journal on S3 is made of: one small object says it, and holds the end of the journal."""

import os
import time
from dataclasses import dataclass, field, replace

import orjson

_FORMAT = 1
_MAX_WRITES = 16
"""So many writers may come after one whose answer was lost until it looks whether it succeeded."""
DOOMED_S = 60.0
"""Seconds for which bytes stay that the journal no longer has: somebody may be reading them."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a journal in an object of its own, which never changes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A journal as it was after a write.

    `generation` tells it from others that had or will have its name; `writes` names the last
    writes; `doomed` are segments that it had, and when it lost them. A journal that is `gone` was
    removed: its manifest stays, as S3 can't remove an object only if nobody changed it.
    """

    generation: int
    segments: tuple[Segment, ...] = ()
    tail: bytes = field(default=b"", repr=False)
    writes: tuple[str, ...] = ()
    doomed: tuple[tuple[str, float], ...] = ()
    gone: bool = False

    @property
    def size(self) -> int:
        """Length of the journal in bytes."""
        return sum(segment.size for segment in self.segments) + len(self.tail)

    def written(self, write: str) -> "Manifest":
        """Add the name of a write."""
        return replace(self, writes=(*self.writes, write)[-_MAX_WRITES:])

    def without(self, segments: tuple[Segment, ...]) -> "Manifest":
        """Let go of the segments that are not among these."""
        kept = {segment.name for segment in segments}
        now = time.time()
        lost = tuple((s.name, now) for s in self.segments if s.name not in kept)
        return replace(self, segments=segments, doomed=self.doomed + lost)

    def purged(self) -> tuple["Manifest", list[str]]:
        """Forget what was doomed long enough; the names of it."""
        before = time.time() - DOOMED_S
        names = [name for name, at in self.doomed if at < before]
        kept = tuple((name, at) for name, at in self.doomed if at >= before)
        return (replace(self, doomed=kept), names) if names else (self, [])

    def to_bytes(self) -> bytes:
        """Write it down: a line of JSON, and the end of the journal as it is."""
        head = {
            "format": _FORMAT,
            "generation": self.generation,
            "segments": [[s.name, s.size] for s in self.segments],
            "writes": self.writes,
            "doomed": self.doomed,
            "gone": self.gone,
        }
        return orjson.dumps(head) + b"\n" + self.tail

    @classmethod
    def of(cls, data: bytes) -> "Manifest":
        """Read what `to_bytes` wrote; ValueError if it is something else."""
        head, _, tail = data.partition(b"\n")
        value = orjson.loads(head)
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError("no manifest of a journal")
        return cls(
            generation=value["generation"],
            segments=tuple(Segment(name, size) for name, size in value["segments"]),
            tail=tail,
            writes=tuple(value["writes"]),
            doomed=tuple((name, at) for name, at in value["doomed"]),
            gone=value["gone"],
        )


def new_generation() -> int:
    """Make a number that no other journal has."""
    return int.from_bytes(os.urandom(7))
