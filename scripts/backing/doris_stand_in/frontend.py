"""The FE over HTTP: checks who asks, and sends loads on to the BE without reading them."""

import json
from typing import Any
from urllib.parse import parse_qs, quote

from backing.doris_stand_in.accounts import Accounts, basic
from backing.doris_stand_in.faults import Faults
from backing.doris_stand_in.http1 import Request, Response
from backing.doris_stand_in.store import Store

_NOBODY = 1
"""A port where nobody listens."""


class Frontend:
    """Answers for an FE.

    Parameters
    ----------
    store, accounts, faults
        What both services and the query port share.
    be_port
        Where loads are sent.
    """

    def __init__(self, store: Store, accounts: Accounts, faults: Faults, *, be_port: int) -> None:
        self._store = store
        self._accounts = accounts
        self._faults = faults
        self._be_port = be_port

    async def __call__(self, request: Request) -> Response:  # noqa: PLR0911  # one for each route
        """Answer a request."""
        match (request.method, request.path):
            case ("PUT", ["api", db, table, "_stream_load"]):
                return self._stream_load(request, db, table)
            case ("PUT", ["api", _db, "_stream_load_2pc"] | ["api", _db, _, "_stream_load_2pc"]):
                return self._second_phase(request)
            case ("GET", ["api", "health"]):
                return _ok({"online_backend_num": 1, "total_backend_num": 1})
            case ("GET", ["api", "bootstrap"]):
                return Response.of_json({"status": "OK", "msg": "Success"})
            case ("GET" | "POST", ["stand_in", "faults"]):
                return await self._arm(request)
            case ("GET", ["api", *rest]):
                return self._guarded(request) or self._metadata(request, rest)
        return _error(404, "Not Found", f"No handler found for {request.method} {request.target}")

    def _guarded(self, request: Request) -> Response | None:
        """Refuse who is unknown: with 200, as all errors of this API are."""
        who = basic(request.headers.get("authorization"))
        if who is None:
            return _error(401, "Unauthorized", "Need auth information.")
        if not self._accounts.knows(*who):
            name = who[0]
            return _error(401, "Unauthorized", f"Access denied for user '{name}@127.0.0.1'")
        return None

    def _stream_load(self, request: Request, db: str, table: str) -> Response:
        if self._faults.take("fe_500") is not None:
            return Response(500, b"Internal Server Error", {"Content-Type": "text/plain"})
        if refusal := self._guarded(request):
            return refusal
        if "expect" not in request.headers:
            return _failed("There is no 100-continue header")
        if not db or not table:
            return _failed("No database selected." if not db else "No table selected.")
        return self._redirect(request)

    def _second_phase(self, request: Request) -> Response:
        if refusal := self._guarded(request):
            return refusal
        if not (request.headers.get("txn_id") or request.headers.get("label")):
            return _failed("No transaction id or label selected.")
        if not request.headers.get("txn_operation"):
            return _failed("No transaction operation('commit' or 'abort') selected.")
        return self._redirect(request)

    def _redirect(self, request: Request) -> Response:
        """Send to the BE; the address carries user and password, as the real one does."""
        if self._faults.take("fe_no_backend") is not None:
            return _failed(
                "errCode = 2, detailMessage = No backend load available, policy: "
                "load available: true"
            )
        port = _NOBODY if self._faults.take("be_unreachable") is not None else self._be_port
        user, password = basic(request.headers["authorization"]) or ("", "")
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        location = f"http://{who}@127.0.0.1:{port}{request.target}"
        return Response(307, b"", {"Location": location, "Content-Type": "text/html;charset=utf-8"})

    def _metadata(self, request: Request, rest: list[str]) -> Response:
        match rest:
            case ["backends"]:
                backend = {"ip": "127.0.0.1", "http_port": self._be_port, "is_alive": True}
                return _ok({"backends": [backend]})
            case [db, "get_load_state"]:
                label = parse_qs(request.query).get("label", [""])[0]
                states = [t["state"] for t in self._store.loads(db) if t["label"] == label]
                return _ok(states[-1] if states else "UNKNOWN")
            case [db, name, "_schema"]:
                return self._schema(db, name)
        return _error(404, "Not Found", "No handler found for GET")

    def _schema(self, db: str, name: str) -> Response:
        table = self._store.table(db, name)
        if table is None:
            return _ok({"status": 403, "exception": f"Unknown table '{name}'"})
        properties = [
            {
                "name": c.name,
                "type": c.type + ("V2" if c.type in {"DATE", "DATETIME"} else ""),
                "comment": c.comment,
                "aggregation_type": "" if c.is_key or not table.is_unique else "REPLACE",
            }
            for c in table.columns
        ]
        kind = {"UNIQUE": "UNIQUE_KEYS"}.get(table.keys_type, "DUP_KEYS")
        return _ok({"keysType": kind, "properties": properties, "status": 200})

    async def _arm(self, request: Request) -> Response:
        """Arm a fault (POST), or tell which are armed: the stand-in's own, not of Doris."""
        if request.method == "POST":
            try:
                asked = json.loads(await request.body())
                self._faults.arm(**asked)
            except (ValueError, KeyError, TypeError) as e:
                return Response.of_json({"error": repr(e)}, 400)
        return Response.of_json(self._faults.armed())


def _ok(data: Any) -> Response:
    return Response.of_json({"msg": "success", "code": 0, "data": data, "count": 0})


def _error(code: int, message: str, data: str) -> Response:
    return Response.of_json({"msg": message, "code": code, "data": data, "count": 0})


def _failed(message: str) -> Response:
    return Response.of_json({"status": "FAILED", "msg": message})
