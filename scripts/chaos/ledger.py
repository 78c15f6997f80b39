"""What was sent, and what was answered: the senders' own books, against which all is counted."""

import hashlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Lock

from chaos.images import Image, data_set_of


class Verdict(StrEnum):
    """What an answer means to a sender."""

    ACKNOWLEDGED = "acknowledged"
    RETRYABLE = "retryable"
    FINDING = "finding"
    """An answer that the archive must not give: it is a fault, even if a retry succeeds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt to send an image; `took_s` is until the answer came."""

    verdict: Verdict
    text: str
    took_s: float = 0.0


@dataclass(slots=True)
class Entry:
    """One image in the books."""

    image: Image
    data_set_sha256: str
    acknowledged_s: float | None = None
    attempts: int = 0


@dataclass(slots=True)
class Ledger:
    """The books of all senders; each line is also written to `path`, for whoever looks later."""

    path: Path
    began_s: float = field(default_factory=time.monotonic)
    entries: dict[str, Entry] = field(default_factory=dict)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    acknowledgements: dict[str, list[float]] = field(default_factory=dict)
    slowest_s: dict[tuple[str, str], float] = field(default_factory=dict)
    resent: int = 0
    _lock: Lock = field(default_factory=Lock)

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began_s

    def open(self, image: Image) -> None:
        """Enter an image before it is sent for the first time."""
        digest = hashlib.sha256(data_set_of(image.part10())).hexdigest()
        with self._lock:
            self.entries.setdefault(image.sop_instance_uid, Entry(image, digest))

    def note(self, protocol: str, image: Image, answer: Answer) -> None:
        """Enter an answer."""
        at_s = self.now_s()
        with self._lock:
            entry = self.entries[image.sop_instance_uid]
            entry.attempts += 1
            said = (protocol, answer.text)
            self.answers[said] += 1
            self.slowest_s[said] = max(self.slowest_s.get(said, 0.0), answer.took_s)
            if answer.verdict is Verdict.ACKNOWLEDGED:
                self.acknowledgements.setdefault(protocol, []).append(at_s)
                if entry.acknowledged_s is None:
                    entry.acknowledged_s = at_s
                else:
                    self.resent += 1
            if answer.verdict is Verdict.FINDING:
                self.findings.append(
                    f"{at_s:.1f} s, {protocol}: {answer.text} for {image.sop_instance_uid}"
                )
            self._write(at_s, protocol, image, answer)

    def _write(self, at_s: float, protocol: str, image: Image, answer: Answer) -> None:
        line = {
            "at_s": round(at_s, 3),
            "protocol": protocol,
            "sop_instance_uid": image.sop_instance_uid,
            "verdict": answer.verdict,
            "answer": answer.text,
            "took_s": round(answer.took_s, 3),
        }
        with self.path.open("a") as f:
            f.write(json.dumps(line) + "\n")

    @property
    def unacknowledged(self) -> list[Entry]:
        """Images that nobody said are safe."""
        with self._lock:
            return [e for e in self.entries.values() if e.acknowledged_s is None]

    def longest_silence(self, protocol: str, end_s: float) -> tuple[float, float]:
        """Longest time without an acknowledgement, and when it began."""
        times = [0.0, *self.acknowledgements.get(protocol, []), end_s]
        gaps = [(b - a, a) for a, b in itertools.pairwise(times)]
        return max(gaps)
