"""moto's server, which keeps the promise that all rests on: a write with a condition is one step.

By itself it looks whether the condition holds, and writes later: of two that may write only where
nothing is, both succeed.
"""

import io
import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto import server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OneWriteAtATime(DomainDispatcherApplication):
    """The application; a body has come whole before its request has its turn."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._turn = Lock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[Any]:
        """Answer a request."""
        if environ["REQUEST_METHOD"] in _READING:
            answer: Iterable[Any] = super().__call__(environ, start_response)
            return answer
        length = environ.get("CONTENT_LENGTH")
        if length:
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        with self._turn:
            written: Iterable[Any] = super().__call__(environ, start_response)
        return written


if __name__ == "__main__":
    setattr(server, "DomainDispatcherApplication", OneWriteAtATime)  # noqa: B010 - not its own name
    server.main(sys.argv[1:])
