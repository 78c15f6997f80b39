"""Something between us and S3 that loses answers, or refuses, as networks and services do."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fate = Literal["passed on", "answer lost", "refused"]


class Between(ThreadingHTTPServer):
    """Passes requests on to S3; `fate` decides of each by its method and path."""

    daemon_threads = True
    request_queue_size = 128  # by itself 5: more at once would wait a second, or fail

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.s3 = endpoint.removeprefix("http://")
        self.fate: Callable[[str, str], Fate] = lambda _method, _path: "passed on"
        self.lost: list[str] = []
        self._deciding = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def lose_once(self, method: str, word: str, fate: Fate = "answer lost") -> None:
        """The next answer to a request whose path holds a word does not arrive."""

        def decide(asked: str, path: str) -> Fate:
            with self._deciding:  # requests come in threads
                if asked == method and word in path and not self.lost:
                    self.lost.append(path)
                    return fate
            return "passed on"

        self.lost.clear()
        self.fate = decide


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fate = self.server.fate(self.command, self.path)
        if fate == "refused":
            self.close_connection = True
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        with closing(http.client.HTTPConnection(self.server.s3, timeout=60)) as s3:
            s3.request(self.command, self.path, body, dict(self.headers.items()))
            answer = s3.getresponse()
            data = answer.read()
        if fate == "answer lost":
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self.send_header("content-length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - names of the base

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def between(endpoint: str) -> Iterator[Between]:
    """Stand between us and S3."""
    with Between(endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
