"""Faults: which member suffers what and when, all of it decided by the seed before the run."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from threading import Event

from backing.doris import inject

_PAUSE_S = (2.0, 7.0)
_QUIET_S = 5.0
"""Time before the first fault, in which all is well."""
_RESTARTS = {"postgresql": signal.SIGINT}
"""By which signal a member goes when it is restarted; others by SIGTERM, which PostgreSQL would
answer by waiting for its clients."""


class Kind(StrEnum):
    """What happens to a member."""

    KILL = "killed"
    RESTART = "restarted"
    FREEZE = "frozen"
    CUT = "cut off"
    """All of its TCP connections break at once."""
    UNSURE = "unsure"
    """The stand-in for Doris gives answers from which one can't tell whether a load was taken."""
    DISK_FULL = "disk full"


_LASTS_S = {Kind.FREEZE: (5.0, 20.0), Kind.DISK_FULL: (4.0, 10.0)}
_LISTENING = frozenset({"kafka", "postgresql", "redis", "nginx", "doris", "storescp", "server"})
_UNSURE = (
    "publish_timeout",
    "label_running",
    "drop_before_commit",
    "drop_after_commit",
    "cut_answer",
    "crash_before_commit",
    "crash_after_commit",
)
_UNSURE_TIMES = 3
STORAGE = "storage"
"""The member that a full disk happens to."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when (seconds from the start of the run), what, to whom, and for how long."""

    at_s: float
    kind: Kind
    member: str
    lasts_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Happened:
    """What was done: at which second of the run, and what came of it."""

    at_s: float
    fault: Fault
    note: str = ""


def schedule(
    seed: int, kinds: Mapping[str, str], duration_s: float, *, is_root: bool, disk: bool
) -> list[Fault]:
    """Decide all faults of a run: a deck of every fault for every kind of member, shuffled.

    Parameters
    ----------
    seed
        The same seed gives the same faults.
    kinds
        Kind of each member by its name.
    duration_s
        How long; each fault ends before that.
    is_root
        Whether connections of others may be cut.
    disk
        Whether the disk may be filled.
    """
    chance = Random(f"{seed}/faults")  # noqa: S311 - to be repeated, not to be secret
    names: dict[str, list[str]] = {}
    for name in sorted(kinds):
        names.setdefault(kinds[name], []).append(name)
    whole_deck = [(k, m) for k in (Kind.KILL, Kind.RESTART, Kind.FREEZE) for m in sorted(names)]
    whole_deck += [(Kind.CUT, m) for m in sorted(names) if m in _LISTENING and is_root]
    whole_deck += [(Kind.DISK_FULL, STORAGE)] * disk
    whole_deck += [(Kind.UNSURE, m) for m in ("doris",) * 2 if m in names]
    faults: list[Fault] = []
    deck: list[tuple[Kind, str]] = []
    at_s = min(_QUIET_S, duration_s / 4)
    while True:
        if not deck:
            deck = chance.sample(whole_deck, len(whole_deck))
        kind, member_kind = deck.pop()
        member = chance.choice(names.get(member_kind, [member_kind]))
        lasts_s = round(chance.uniform(*_LASTS_S[kind]), 1) if kind in _LASTS_S else 0.0
        detail = chance.choice(_UNSURE) if kind is Kind.UNSURE else ""
        if at_s + lasts_s > duration_s:
            return faults
        faults.append(Fault(round(at_s, 1), kind, member, lasts_s, detail))
        at_s += chance.uniform(*_PAUSE_S)


@dataclass
class Trouble:
    """Does to a cluster what the schedule says.

    Parameters
    ----------
    cluster_file
        ``cluster.json``, read anew for each fault: members change their pids.
    now_s
        Seconds since the run began.
    brokers_in_sync
        Whether every partition has all of its replicas: only then a broker may suffer, so that
        never two of them are away.
    doris
        Address of the stand-in's FE.
    say
        Takes a line for each event.
    """

    cluster_file: Path
    now_s: Callable[[], float]
    brokers_in_sync: Callable[[], bool]
    doris: str
    say: Callable[[str], None]
    events: list[Happened] = field(default_factory=list)
    left_out: int = 0
    _frozen: dict[str, tuple[float, list[int]]] = field(default_factory=dict)
    _full_until_s: float | None = None

    def run(self, faults: Sequence[Fault], end_s: float, stop: Event) -> None:
        """Do one fault after the other until `end_s`; all that was stopped goes on at the end."""
        todo = list(faults)
        try:
            while self.now_s() < end_s and not stop.is_set():
                self._end_what_is_over()
                due = [fault for fault in todo if fault.at_s <= self.now_s()]
                for fault in due:
                    if self._may(fault):
                        todo.remove(fault)
                        self._do(fault)
                stop.wait(0.1)
        finally:
            self._end_what_is_over(everything=True)
            for name in {fault.detail for fault in faults if fault.kind is Kind.UNSURE}:
                self._armed(name, 0)
        self.left_out = len(todo)

    def members(self) -> dict[str, dict[str, object]]:
        """Members by name, as the cluster has them now."""
        found: dict[str, dict[str, object]] = json.loads(self.cluster_file.read_text())["members"]
        return found

    def _may(self, fault: Fault) -> bool:
        """Whether a fault may happen now: a broker has to wait until all others are well."""
        if not fault.member.startswith("kafka"):
            return True
        is_another_frozen = any(name.startswith("kafka") for name in self._frozen)
        return not is_another_frozen and self.brokers_in_sync()

    def _do(self, fault: Fault) -> None:
        if fault.kind is Kind.DISK_FULL:
            self._fill_disk(fault)
            return
        if fault.kind is Kind.UNSURE:
            self._note(fault, fault.detail + self._armed(fault.detail, _UNSURE_TIMES))
            return
        member = self.members()[fault.member]
        pid = int(str(member["pid"]))
        if fault.kind is Kind.FREEZE:
            pids = family(pid)
            self._frozen[fault.member] = (self.now_s() + fault.lasts_s, pids)
            send(signal.SIGSTOP, pids)
        elif fault.kind is Kind.CUT:
            cut(family(pid))
        elif fault.kind is Kind.KILL:
            send(signal.SIGKILL, [pid])
        else:
            send(_RESTARTS.get(str(member["kind"]), signal.SIGTERM), [pid])
        self._note(fault, f"pid {pid}")

    def _armed(self, name: str, times: int) -> str:
        try:
            inject(self.doris, name, times=times)
        except OSError as e:
            return f": {e}"
        return ""

    def _end_what_is_over(self, *, everything: bool = False) -> None:
        now_s = self.now_s()
        for name, (until_s, pids) in list(self._frozen.items()):
            if everything or now_s >= until_s:
                send(signal.SIGCONT, pids)
                del self._frozen[name]
        if self._full_until_s is not None and (everything or now_s >= self._full_until_s):
            self._filler.unlink(missing_ok=True)
            self._full_until_s = None

    @property
    def _filler(self) -> Path:
        return Path(json.loads(self.cluster_file.read_text())["storage_root"], "filler")

    def _fill_disk(self, fault: Fault) -> None:
        with self._filler.open("wb") as f:
            end = 0
            for piece in (64 << 20, 1 << 20, 64 << 10):  # others write meanwhile
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(f.fileno(), end, piece)
                        end += piece
        self._full_until_s = self.now_s() + fault.lasts_s
        self._note(fault, "")

    def _note(self, fault: Fault, note: str) -> None:
        event = Happened(round(self.now_s(), 1), fault, note)
        self.events.append(event)
        lasts = f" for {fault.lasts_s} s" if fault.lasts_s else ""
        self.say(f"{event.at_s:6.1f} s  {fault.member:<12} {fault.kind}{lasts}  {note}")


def send(number: signal.Signals, pids: Sequence[int]) -> None:
    """Send a signal; who is gone already is passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def family(pid: int) -> list[int]:
    """Give a process and all that descend from it: nginx and PostgreSQL work in their children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cut(pids: Sequence[int]) -> None:
    """Break every TCP connection at the ports where these processes listen; root only."""
    listening = subprocess.run(
        ["ss", "-H", "-ltnp"], capture_output=True, text=True, check=True
    ).stdout
    ours = {f"pid={pid}," for pid in pids}
    for line in listening.splitlines():
        if any(pid in line for pid in ours):
            port = line.split()[3].rpartition(":")[2]
            subprocess.run(
                ["ss", "-K", "-H", "state", "established", "sport", "=", f":{port}"],
                capture_output=True,
                check=False,
            )
