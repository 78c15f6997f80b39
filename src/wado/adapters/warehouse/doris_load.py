"""Stream Load: rows to Doris over HTTP, under a label that it takes once.

In two explicit steps. A frontend (FE) is asked with an empty body, and names the backend (BE) that
takes the load; only that gets the rows. Clients that follow redirects by themselves send the rows
twice, or leave the password out at the backend.
"""

import base64
import re
import select
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from itertools import islice
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import orjson

from wado.errors import InvalidMessage, Unavailable

_REDIRECTS = frozenset({301, 302, 307, 308})
_MOST_REDIRECTS = 3
_CONTINUE_WITHIN_S = 3.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_RUNNING_WITHIN_S = 10.0
"""How long a label that is running is waited for here; the consumer's back-off goes on."""

_LONGEST_ANSWER = 1 << 20
_REASON_BYTES = 4096
_QUOTED = re.compile(r"src line|tuple ?=|first \d+ bytes|input[ _]str|\bvalue\b|['\"{|+]")
"""Where a reason begins to quote a row."""

_MISSING = ("unknown table", "unknown database", "does not exist", "table not found")
_HINT = "; run `wado init` if that was not done"


class _Unreachable(Exception):
    """A node does not answer, or has no place for a load; it has taken nothing."""


class StreamLoader:
    """Loads rows into tables of one database.

    Parameters
    ----------
    frontends
        ``http://host:port`` of each FE; tried in turn.
    user, password
        An account that may load into the database.
    database
        Its name.
    connect_timeout_s
        How long to wait for a connection.
    load_timeout_s
        How long a load may take.
    """

    def __init__(
        self,
        frontends: Sequence[str],
        *,
        user: str,
        password: str,
        database: str,
        connect_timeout_s: float,
        load_timeout_s: float,
    ) -> None:
        self._frontends = tuple(frontends)
        self._first = 0
        account = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._authorization = f"Basic {account}"
        self._path = f"/api/{quote(database)}/{{table}}/_stream_load"
        self._connect_timeout_s = connect_timeout_s
        self._load_timeout_s = load_timeout_s

    def load(self, table: str, body: bytes, label: str, *, delete: bool = False) -> bool:
        """Load rows, or delete those of the same keys; False if the label was loaded before.

        Raises
        ------
        Unavailable
            Doris does not answer, or can't load now. Should the rows have been taken all the
            same, the label says so when it is sent again.
        InvalidMessage
            Doris filtered rows that do not fit the table.
        """
        deadline = time.monotonic() + min(self._load_timeout_s, _RUNNING_WITHIN_S)
        pause_s = _FIRST_PAUSE_S
        while True:
            answer = self._send(table, body, self._headers(label, delete=delete))
            status = str(answer.get("Status") or answer.get("status") or "")
            if status in ("Success", "Publish Timeout"):
                # After the latter the rows are safe, and seen soon.
                return True
            if status != "Label Already Exists":
                raise self._refusal(answer, label)
            existing = str(answer.get("ExistingJobStatus", ""))
            if existing == "FINISHED":
                return False
            if time.monotonic() + pause_s > deadline:
                raise Unavailable(f"Doris: a load with the label {label} is {existing or 'known'}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    # ------------------------------------------------------------------ HTTP

    def _headers(self, label: str, *, delete: bool) -> dict[str, str]:
        return {
            "Authorization": self._authorization,
            "Expect": "100-continue",
            "label": label,
            "format": "json",
            "read_json_by_line": "true",
            "timezone": "UTC",
            "strict_mode": "true",
            "max_filter_ratio": "0",
            "timeout": str(max(1, round(self._load_timeout_s))),
            **({"merge_type": "DELETE"} if delete else {}),
        }

    def _send(self, table: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Ask one FE after the other for a BE, until a BE has the rows."""
        problems: list[str] = []
        refusal: dict[str, Any] | None = None
        first, count = self._first, len(self._frontends)
        for number in range(first, first + count):
            url = self._frontends[number % count].rstrip("/") + self._path.format(table=table)
            try:
                answer = self._ask(url, headers)
                if isinstance(answer, str):
                    result = self._put(answer, body, headers)
                    self._first = number % count
                    return result
                refusal = answer  # perhaps of an FE that is starting; another may know better
            except _Unreachable as e:
                problems.append(str(e))
        if refusal is not None:
            return refusal
        raise Unavailable("Doris: " + "; ".join(problems))

    def _ask(self, url: str, headers: Mapping[str, str]) -> str | dict[str, Any]:
        """Ask an FE: the address of a BE, or its refusal."""
        with closing(self._connect(url)) as connection:
            connection.putrequest("PUT", _target(url), skip_accept_encoding=True)
            return self._answer(connection, url, {**headers, "Content-Length": "0"}, b"")

    def _put(self, url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Send the rows to a BE, once it says that it wants them."""
        for _ in range(_MOST_REDIRECTS):
            with closing(self._connect(url)) as connection:
                connection.putrequest("PUT", _target(url), skip_accept_encoding=True)
                length = {"Content-Length": str(len(body))}
                answer = self._answer(connection, url, {**headers, **length}, body)
            if not isinstance(answer, str):
                return answer
            url = answer
        raise _Unreachable(f"{_host(url)}: too many redirects")

    def _connect(self, url: str) -> HTTPConnection:
        parts = urlsplit(url)
        https = parts.scheme == "https"
        make = HTTPSConnection if https else HTTPConnection
        try:
            port = parts.port or (443 if https else 80)
            connection = make(parts.hostname or "", port, timeout=self._connect_timeout_s)
            connection.connect()
            connection.sock.settimeout(self._load_timeout_s)
        except (OSError, HTTPException) as e:
            raise _Unreachable(f"{_host(url)} does not answer: {_reason(e)}") from e
        return connection

    def _answer(
        self, connection: HTTPConnection, url: str, headers: Mapping[str, str], body: bytes
    ) -> str | dict[str, Any]:
        """Send what was begun, and read the address that it names, or the answer.

        Raises
        ------
        _Unreachable
            The node refuses, or failed before it had the rows.
        Unavailable
            It failed after that: what became of the load, its label tells.
        """
        has_rows = False
        try:
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            if body and _is_wanted(connection):
                has_rows = True
                # The answer may come before all is sent: it says more than the broken pipe.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.send(body)
            elif not body:
                connection.sock.settimeout(self._connect_timeout_s)
            response = connection.getresponse()
            if response.status in _REDIRECTS:
                return _without_account(urljoin(url, response.headers.get("Location", "")))
            return _parsed(response, url)
        except (OSError, HTTPException) as e:
            if has_rows:
                raise Unavailable(f"Doris: {_host(url)} failed during a load: {_reason(e)}") from e
            raise _Unreachable(f"{_host(url)} does not answer: {_reason(e)}") from e

    # ------------------------------------------------------------------ refusals

    def _refusal(self, answer: Mapping[str, Any], label: str) -> InvalidMessage | Unavailable:
        """Tell rows that do not fit from a Doris that can't load now.

        Only rows that Doris says it filtered, for what is in them, are to blame. A wrong guess
        would put good messages among the dead letters.
        """
        message = str(answer.get("Message") or answer.get("msg") or answer.get("Status"))
        filtered = answer.get("NumberFilteredRows")
        reasons = self._reasons(str(answer.get("ErrorURL") or ""))
        text = f"Doris refuses {label}: {without_values(message)}" + (
            f" ({reasons})" if reasons else ""
        )
        lower = text.lower()
        if isinstance(filtered, int) and filtered > 0 and "no partition" not in lower:
            return InvalidMessage(text)
        return Unavailable(text + (_HINT if any(m in lower for m in _MISSING) else ""))

    def _reasons(self, url: str) -> str:
        """Read why rows were filtered; without the rows: they name patients."""
        try:
            url = _without_account(url)
            with closing(self._connect(url)) as connection:
                connection.sock.settimeout(self._connect_timeout_s)
                connection.request("GET", _target(url))
                text = connection.getresponse().read(_REASON_BYTES).decode(errors="replace")
        except (_Unreachable, OSError, HTTPException):
            return ""
        lines = filter(None, map(without_values, text.splitlines()))
        return "; ".join(islice(lines, 3))


def without_values(text: str) -> str:
    """Cut a reason of Doris off where it goes on to quote what is in a row."""
    return " ".join(_QUOTED.split(text, maxsplit=1)[0].split()).rstrip(" .,:;[(")[:300]


def _is_wanted(connection: HTTPConnection) -> bool:
    """Wait for ``100 Continue``; False if the node answers at once and wants no rows.

    A node that says nothing gets them after a while (RFC 9110 §10.1.1).
    """
    sock = connection.sock
    if hasattr(sock, "pending"):  # TLS: what was received can't be looked at
        return True
    answer = select.poll()
    answer.register(sock, select.POLLIN)
    if not answer.poll(_CONTINUE_WITHIN_S * 1000):
        return True
    begin = sock.recv(12, socket.MSG_PEEK)
    return not begin.startswith(b"HTTP/") or begin[9:12] == b"100"


def _parsed(response: HTTPResponse, url: str) -> dict[str, Any]:
    text = response.read(_LONGEST_ANSWER)
    if response.status in (401, 403):
        raise _Unreachable(f"{_host(url)} does not let us in ({response.status})")
    try:
        answer = orjson.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise HTTPException(f"HTTP status {response.status}, and no JSON")
    return answer


def _without_account(url: str) -> str:
    """Take user and password out of an address: an FE puts them into that of the BE."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    cleaned = f"{parts.scheme}://{host}{_target(url)}"
    try:
        usable = parts.scheme in ("http", "https") and urlsplit(cleaned).port != 0 and bool(host)
    except ValueError:
        usable = False
    if not usable:  # and is not shown: what is not understood may be the password
        raise _Unreachable("an FE names an address of a BE that can't be used")
    return cleaned


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


def _reason(e: Exception) -> str:
    if isinstance(e, TimeoutError):
        return "no answer in time"
    return getattr(e, "strerror", None) or str(e) or type(e).__name__
