"""HTTP/1.1 as it is on the wire: requests, bodies, responses, and what breaks the rules."""

import os
import socket
import time
from collections.abc import Coroutine
from http.client import HTTPResponse
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wado.services.server.exchange import Exchange, Scope
from wado.services.server.outflow import FileRange, Part
from web import Response, talk

LARGE = 3 << 20


class Echo:
    """Answers in the way that the path names."""

    def __init__(self, file: Path | None = None) -> None:
        self.scopes: list[Scope] = []
        self.fd = os.open(file, os.O_RDONLY) if file else -1

    def now(self, scope: Scope, exchange: Exchange) -> bool | Coroutine[Any, Any, None]:
        self.scopes.append(scope)
        if scope.path == "/parts" and exchange.can_send_now:
            parts: list[Part] = [b"before", FileRange(self.fd, 0, LARGE), b"after"]
            rest = exchange.response_parts(200, [], LARGE + 11, parts)
            return True if rest is None else rest
        if scope.path == "/now":
            exchange.response_bytes(200, [("x-way", "now")], b"now")
            return True
        return False

    async def serve(self, scope: Scope, exchange: Exchange) -> None:
        match scope.path:
            case "/body":
                got = b"".join([data async for data in exchange])
                exchange.response_bytes(200, [("content-type", "text/plain")], got)
            case "/refuse":
                exchange.response_bytes(413, [], b"no more")
            case "/empty":
                exchange.response_empty(204, [])
            case "/chunks":
                async with exchange.response_stream(200, []) as sender:
                    for _ in range(3):
                        await sender.send(b"piece ")
            case "/file":
                headers = [("content-length", str(LARGE))]
                async with exchange.response_stream(200, headers) as sender:
                    await sender.send_file(FileRange(self.fd, 0, LARGE))
            case "/short":
                headers = [("content-length", str(LARGE + 10))]
                async with exchange.response_stream(200, headers) as sender:
                    await sender.send_file(FileRange(self.fd, 0, LARGE + 10))
            case "/broken":
                raise LookupError


def ask(*requests: bytes, application: Any = None) -> list[Response]:
    """Send requests one after the other on one connection."""

    def client(sock: socket.socket) -> list[Response]:
        answers = []
        for request in requests:
            sock.sendall(request)
            answers.append(Response(sock, request.split(b" ", 1)[0].decode()))
        return answers

    return talk(application or Echo(), client)


def rest_of(sock: socket.socket) -> bytes:
    """Read until the connection is closed, or cut."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except OSError:
        pass
    return got


def raw(application: Any, *pieces: bytes, pause_s: float = 0.0, **limits: float) -> bytes:
    """Send bytes; all that comes back until the connection is closed."""

    def client(sock: socket.socket) -> bytes:
        for piece in pieces:
            try:
                sock.sendall(piece)
            except OSError:
                break
            time.sleep(pause_s)
        return rest_of(sock)

    return talk(application, client, **limits)


HEAD = b" HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def test_one_connection_serves_many_requests():
    answers = ask(b"GET /now" + HEAD + b"\r\n", b"GET /chunks" + HEAD + b"\r\n",
                  b"GET /empty" + HEAD + b"\r\n", b"GET /now" + HEAD + b"\r\n")  # fmt: skip
    assert [a.status for a in answers] == [200, 200, 204, 200]
    assert [a.body for a in answers] == [b"now", b"piece piece piece ", b"", b"now"]
    assert answers[1].headers["transfer-encoding"] == "chunked"
    assert "date" in answers[0].headers


def test_requests_that_come_together_are_answered_in_order():
    together = b"".join(b"GET /%s%s\r\n" % (name, HEAD) for name in (b"chunks", b"now", b"empty"))
    got = raw(Echo(), together + b"GET /now" + HEAD + CLOSE)
    assert [piece[:3] for piece in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"204", b"200"]
    assert got.index(b"piece") < got.index(b"now")


def test_the_scope_says_what_was_asked():
    echo = Echo()
    ask(b"GET /now?a=b%20c HTTP/1.1\r\nHost: here:1\r\nACCEPT: a/b\r\nAccept: c/d\r\n\r\n",
        b"GET http://else/now?x HTTP/1.1\r\nHost: here:1\r\n\r\n",
        application=echo)  # fmt: skip
    first, second = echo.scopes
    assert (first.method, first.path, first.query_string) == ("GET", "/now", "a=b%20c")
    assert first.headers == {"host": "here:1", "accept": "a/b, c/d"}
    assert (second.path, second.query_string, second.http_version) == ("/now", "x", "1.1")


def test_head_gives_the_headers_and_no_body():
    (answer, after) = ask(b"HEAD /now" + HEAD + b"\r\n", b"GET /now" + HEAD + b"\r\n")
    assert (answer.headers["content-length"], answer.body) == ("3", b"")
    assert after.body == b"now"


@pytest.mark.parametrize("size", [1, 70_000, LARGE])
def test_bodies_come_through_by_length_and_by_chunks(size: int):
    data = os.urandom(size)
    by_length = b"POST /body" + HEAD + b"Content-Length: %d\r\n\r\n" % size + data
    chunked = b"POST /body" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece)
        for piece in (data[i : i + 50_000] for i in range(0, size, 50_000))
    ) + b"0\r\n\r\n"  # fmt: skip
    assert [a.body for a in ask(by_length, chunked, by_length)] == [data] * 3


def test_who_expects_100_continue_hears_it_once_the_body_is_wanted():
    request = b"POST /body" + HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"

    def client(sock: socket.socket) -> tuple[bytes, Response]:
        sock.sendall(request)
        interim = sock.recv(100)
        sock.sendall(b"abc")
        return interim, Response(sock, "POST")

    interim, answer = talk(Echo(), client)
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.body == b"abc"


def test_who_is_refused_early_sees_why():
    request = b"POST /refuse" + HEAD + b"Content-Length: %d\r\n\r\n" % (8 << 20)
    got = raw(Echo(), request, *[bytes(1 << 20)] * 8)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in got
    assert got.endswith(b"no more")


def test_files_go_out_whole_also_to_slow_readers(tmp_path: Path):
    (tmp_path / "file").write_bytes(data := os.urandom(LARGE))

    def slow(sock: socket.socket) -> bytes:
        sock.sendall(b"GET /file" + HEAD + CLOSE)
        got = b""
        while piece := sock.recv(200_000):
            got += piece
            time.sleep(0.001)
        return got

    assert talk(Echo(tmp_path / "file"), slow).partition(b"\r\n\r\n")[2] == data


@pytest.mark.parametrize("pause_s", [0.0, 0.002])
def test_parts_are_sent_at_once_as_far_as_the_client_takes_them(tmp_path: Path, pause_s: float):
    (tmp_path / "file").write_bytes(data := os.urandom(LARGE))

    def client(sock: socket.socket) -> list[bytes]:
        bodies = []
        for _ in range(3):
            sock.sendall(b"GET /parts" + HEAD + b"\r\n")
            raw_answer = HTTPResponse(sock)
            raw_answer.begin()
            got = b""
            while piece := raw_answer.read(100_000):
                got += piece
                time.sleep(pause_s)
            bodies.append(got)
        return bodies

    assert talk(Echo(tmp_path / "file"), client) == [b"before" + data + b"after"] * 3


def test_a_file_that_is_shorter_than_promised_cuts_the_connection(tmp_path: Path):
    (tmp_path / "file").write_bytes(bytes(LARGE))
    got = raw(Echo(tmp_path / "file"), b"GET /short" + HEAD + b"\r\n")
    assert len(got.partition(b"\r\n\r\n")[2]) <= LARGE


def test_a_client_that_reads_nothing_is_given_up(tmp_path: Path):
    (tmp_path / "file").write_bytes(bytes(LARGE))

    given_up = Event()

    class Watched(Echo):
        async def serve(self, scope: Scope, exchange: Exchange) -> None:
            try:
                await super().serve(scope, exchange)
            finally:
                given_up.set()

    def sleeper(sock: socket.socket) -> bytes:
        sock.sendall(b"GET /file" + HEAD + b"\r\n")
        assert given_up.wait(60)
        return rest_of(sock)

    assert len(talk(Watched(tmp_path / "file"), sleeper, stall_timeout_s=0.1)) < LARGE


def test_http_1_0_gets_bodies_of_unknown_length_up_to_the_end():
    got = raw(Echo(), b"GET /chunks HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\npiece piece piece ")
    assert b"chunked" not in got


def test_an_application_that_fails_is_answered_for():
    errors: list[Any] = []

    def client(sock: socket.socket) -> Response:
        sock.sendall(b"GET /nothing" + HEAD + b"\r\n")
        return Response(sock, "GET")

    assert talk(Echo(), client).status == 500
    assert errors == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /now HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /now HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /now" + HEAD + b"Host: y\r\n\r\n", 400),  # two of them
        (b"POST /body" + HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST /body" + HEAD + b"Content-Length: -3\r\n\r\nabc", 400),
        (b"POST /body" + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /body" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /" + b"a" * 70_000 + HEAD + b"\r\n", 414),
        (b"GET /now" + HEAD + b"x: %s\r\n" % (b"y" * 400_000) + b"\r\n", 431),
        (b"GET /now" + HEAD + b"x: y\r\n" * 90_000 + b"\r\n", 431),
        (b"GET /now" + HEAD + b"".join(b"x-%d: y\r\n" % n for n in range(600)) + b"\r\n", 431),
        (b"GET /now" + HEAD + b"bad header\r\n\r\n", 400),
    ],
    ids=str,
)
def test_what_breaks_the_rules_is_refused_and_closed(request_: bytes, status: int):
    got = raw(Echo(), request_)
    assert got.startswith(b"HTTP/1.1 %d " % status), got[:200]
    assert b"\nHTTP/1.1" not in got


def test_other_protocols_are_not_spoken():
    upgrade = b"GET /now" + HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    got = raw(Echo(), upgrade + b"\0frames")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"connection: close\r\n\r\nnow")


def test_nobody_is_connected_through():
    got = raw(Echo(), b"CONNECT a:1" + HEAD + b"Content-Length: 3\r\n\r\nabc")
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nabcde",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
def test_a_body_comes_through_though_another_protocol_is_offered(body: bytes, pause_s: float):
    """Some clients offer HTTP/2 in their first request, whatever it is."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    head, end, rest = body.partition(b"\r\n\r\n")
    got = raw(Echo(), b"POST /body" + HEAD + offer + head + end, rest, pause_s=pause_s)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"connection: close\r\n\r\nabcde")


def test_a_head_that_does_not_come_is_not_waited_for():
    def client(sock: socket.socket) -> bytes:
        sock.sendall(b"GET /now HTTP/1.1\r\nHost: x\r\nX-Sl")
        try:
            return sock.recv(100)  # TimeoutError if nobody closes it
        except ConnectionError:
            return b""

    assert talk(Echo(), client, head_timeout_s=0.1) == b""


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nonsense_is_answered_or_closed_and_never_served(data: bytes):
    echo = Echo()

    def client(sock: socket.socket) -> bytes:
        sock.sendall(data + b"\r\n\r\n\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        return rest_of(sock)

    got = talk(echo, client)
    assert got == b"" or got.startswith(b"HTTP/1.1 ")
    assert echo.scopes == [] or b"HTTP/1" in data


def test_a_client_that_goes_away_ends_the_request():
    ended: list[str] = []

    class Waits(Echo):
        async def serve(self, scope: Scope, exchange: Exchange) -> None:
            assert scope.method == "POST"
            try:
                async for _ in exchange:
                    pass
            finally:
                ended.append("ended")

    def client(sock: socket.socket) -> None:
        sock.sendall(b"POST /body" + HEAD + b"Content-Length: 10\r\n\r\nabc")
        sock.close()
        deadline = time.monotonic() + 60
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)

    talk(Waits(), client)
    assert ended == ["ended"]


def test_the_head_of_an_upload_behind_another_request_does_not_hold_up_its_body():
    """Reading is held while a request waits for its turn; its body must come all the same."""

    def client(sock: socket.socket) -> list[Response]:
        sock.sendall(
            b"GET /chunks" + HEAD + b"\r\nPOST /body" + HEAD + b"Content-Length: 3\r\n\r\n"
        )
        first = Response(sock, "GET")
        sock.sendall(b"abc")
        return [first, Response(sock, "POST")]

    assert [answer.body for answer in talk(Echo(), client)] == [b"piece " * 3, b"abc"]


def test_very_many_requests_that_come_together_are_all_answered():
    many = 3000
    got = raw(Echo(), b"GET /chunks" + HEAD + b"\r\n" + (b"GET /now" + HEAD + b"\r\n") * many
              + b"GET /now" + HEAD + CLOSE)  # fmt: skip
    assert got.count(b"HTTP/1.1 200 ") == many + 2


class Large(Echo):
    """Answers at once with much; notes how often."""

    def now(self, scope: Scope, exchange: Exchange) -> bool:
        self.scopes.append(scope)
        exchange.response_bytes(200, [], bytes(LARGE))
        return True


def test_answers_that_nobody_reads_do_not_pile_up():
    large = Large()

    def client(sock: socket.socket) -> int:
        sock.sendall((b"GET /x" + HEAD + b"\r\n") * 20)
        time.sleep(0.2)
        return len(large.scopes)

    assert talk(large, client) < 3


def test_who_reads_slowly_but_reads_is_not_cut_off():
    def client(sock: socket.socket) -> int:
        sock.sendall(b"GET /x" + HEAD + b"\r\n")
        received = 0
        while received < LARGE and (data := sock.recv(10_000)):
            received += len(data)
            time.sleep(0.01)  # in all, longer than both limits
        return received

    assert talk(Large(), client, head_timeout_s=1.5, stall_timeout_s=2.0) >= LARGE


@pytest.mark.parametrize(
    "start",
    [
        b"GET /now" + HEAD + b"x: ",
        b"POST /body" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",
        b"POST /body" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["header", "trailer", "chunk"],
)
def test_a_line_without_end_is_not_gathered(start: bytes):
    got = raw(Echo(), start, *[b"y" * 100_000] * 5, pause_s=0.01)
    assert got.startswith(b"HTTP/1.1 431 ")


def test_what_comes_behind_a_body_is_no_header():
    echo = Echo()
    request = (
        b"POST /body" + HEAD + b"x-tenant: one\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\nx-tenant: two\r\nx-more: three\r\n\r\n"
    )
    (answer,) = ask(request, application=echo)
    assert answer.body == b"a"
    assert echo.scopes[0].headers["x-tenant"] == "one"
    assert "x-more" not in echo.scopes[0].headers


def test_who_is_refused_before_it_sent_its_body_may_leave_it_out():
    """A client that expects 100 and hears 413 may go on with another request, or send the body."""
    request = b"POST /refuse" + HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    got = raw(Echo(), request + b"GET /now" + HEAD + CLOSE)
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got


def test_http_1_0_is_told_that_the_connection_stays():
    kept = b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    got = raw(Echo(), kept + b"GET /now HTTP/1.0\r\n\r\n")
    assert got.count(b"connection: keep-alive\r\n") == 1
    assert got.count(b"connection: close\r\n") == 1


def test_what_follows_a_request_and_is_none_closes_quietly(caplog: pytest.LogCaptureFixture):
    got = raw(Echo(), b"GET /chunks" + HEAD + b"\r\nnonsense\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert not caplog.records
