"""The end of the process at a step of its work, for tests that go on in the same process."""

from typing import Any


class Crash(Exception):
    """Stands for the end of the process."""


class Crashing:
    """A port that ends the process before or after one of its methods."""

    def __init__(self, port: Any, method: str, *, after: bool) -> None:
        self._port = port
        self._method = method
        self._after = after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name != self._method:
            return value

        def crash(*args: Any, **kwargs: Any) -> None:
            if self._after:
                value(*args, **kwargs)
            raise Crash

        return crash
