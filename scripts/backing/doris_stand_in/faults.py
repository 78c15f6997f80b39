"""Faults on demand: each is armed for a number of times, and spent by what it befalls."""

from threading import Lock
from typing import Any

NAMES = {
    "publish_timeout": "a load is committed, answered with Publish Timeout, seen `seconds` later",
    "label_running": "a load is answered with Label Already Exists, RUNNING",
    "fail": "a load is answered with Fail, and nothing is loaded",
    "hang_before_commit": "a load waits for `seconds`, then goes on",
    "hang_after_commit": "a load is committed and its answer comes `seconds` later",
    "drop_before_commit": "the connection is dropped and nothing is loaded",
    "drop_after_commit": "a load is committed and the connection dropped without an answer",
    "cut_answer": "a load is committed and the connection dropped amid the answer",
    "crash_before_commit": "the stand-in dies of SIGKILL and nothing is loaded",
    "crash_after_commit": "the stand-in dies of SIGKILL when a load is committed",
    "fe_500": "the FE answers a load with 500",
    "fe_no_backend": "the FE knows no backend that is alive",
    "be_unreachable": "the FE sends a load to a port where nobody listens",
    "mysql_drop": "the connection of a query is dropped before its answer",
    "mysql_hang": "a query waits for `seconds`",
}


class Faults:
    """Which faults are armed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._armed: dict[str, dict[str, Any]] = {}

    def arm(self, name: str, times: int = 1, seconds: float = 0.0) -> None:
        """Let a fault happen so many times; 0 disarms it.

        Raises
        ------
        KeyError
            There is no such fault.
        """
        if name not in NAMES:
            raise KeyError(name)
        with self._lock:
            self._armed[name] = {"times": times, "seconds": seconds}

    def take(self, name: str) -> float | None:
        """Spend a fault once: its seconds, or None if it is not armed."""
        with self._lock:
            fault = self._armed.get(name)
            if fault is None or fault["times"] <= 0:
                return None
            fault["times"] -= 1
            return float(fault["seconds"])

    def armed(self) -> dict[str, dict[str, Any]]:
        """What is armed now."""
        with self._lock:
            return {name: dict(fault) for name, fault in self._armed.items() if fault["times"] > 0}
