"""The BE over HTTP: takes the body of a load, and makes it durable before it answers."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import duckdb

from backing.doris_stand_in import load, load_headers
from backing.doris_stand_in.accounts import Accounts, basic
from backing.doris_stand_in.expressions import evaluate
from backing.doris_stand_in.faults import Faults
from backing.doris_stand_in.http1 import Gone, Request, Response
from backing.doris_stand_in.load_headers import LoadOptions, Refused
from backing.doris_stand_in.naming import is_label
from backing.doris_stand_in.schema import DorisError, Table
from backing.doris_stand_in.store import Counts, LabelUsed, Store, Txn, as_lines

_ERRORS_KEPT = 50


class Backend:
    """Answers for a BE.

    Parameters
    ----------
    store, accounts, faults
        What both services and the query port share.
    folder
        Takes the error logs.
    port
        Its own, for the addresses of error logs.
    """

    look_s = 30.0
    """How often the FE looks for loads that take longer than they may."""

    def __init__(
        self, store: Store, accounts: Accounts, faults: Faults, *, folder: Path, port: int
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._faults = faults
        self._folder = folder / "error_log"
        self._port = port

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        match (request.method, request.path):
            case ("PUT", ["api", db, table, "_stream_load"]):
                return await _StreamLoad(self, request, db, table).answer()
            case ("PUT", ["api", db, "_stream_load_2pc"] | ["api", db, _, "_stream_load_2pc"]):
                return await asyncio.to_thread(self._second_phase, request, db)
            case ("GET", ["api", "_load_error_log"]):
                return self._error_log(request)
            case ("GET", ["api", "health"]):
                return Response.of_json({"status": "OK", "msg": "To Be Added"})
        return Response(404, b"Not Found", {"Content-Type": "text/plain"})

    def _second_phase(self, request: Request, db: str) -> Response:
        """Commit or abort what a first phase has loaded."""
        asked, operation = (request.headers.get(n, "") for n in ("txn_id", "txn_operation"))
        try:
            self._allowed(request)
            txn_id = self._asked(request, db)
            self._store.finish(db, txn_id, commit=operation == "commit")
        except (DorisError, Refused) as e:
            return Response.of_json({"status": "ANALYSIS_ERROR", "msg": f"TStatus: {e}"})
        text = f"transaction [{asked or request.headers['label']}] {operation} successfully."
        return Response.of_json({"status": "Success", "msg": text})

    def _asked(self, request: Request, db: str) -> int:
        """Find out which load is to be finished, and how."""
        asked, operation = (request.headers.get(n, "") for n in ("txn_id", "txn_operation"))
        if not asked.isdigit() and not request.headers.get("label"):
            raise DorisError(f"convert txn_id [{asked}] failed")
        if operation not in {"commit", "abort"}:
            raise DorisError("transaction operation should be 'commit' or 'abort'")
        return int(asked) if asked else self._precommitted(db, request.headers["label"])

    def _precommitted(self, db: str, label: str) -> int:
        for txn in self._store.loads(db):
            if txn["label"] == label and txn["state"] == "PRECOMMITTED":
                return int(txn["id"])
        raise DorisError(f"errCode = 2, detailMessage = transaction label [{label}] not found")

    def _allowed(self, request: Request) -> None:
        who = basic(request.headers.get("authorization"))
        if who is None:
            raise Refused("NOT_AUTHORIZED", "no valid Basic authorization")
        if not self._accounts.knows(*who):
            raise Refused(
                "ANALYSIS_ERROR",
                "TStatus: errCode = 2, detailMessage = Access denied for user "
                f"'{who[0]}'@'127.0.0.1' (using password: {'YES' if who[1] else 'NO'})",
            )

    def begin(self, request: Request, db: str, name: str) -> tuple[Txn, Table]:
        """Begin the transaction of a load: a known user, database and table, a free label.

        Raises
        ------
        Refused
            One of these is not so.
        LabelUsed
            The label is not free.
        """
        self._allowed(request)
        load_headers.check_head(request.headers)
        label = request.headers.get("label") or str(uuid4())
        begun = "TStatus: errCode = 2, detailMessage = "
        if db not in self._store.databases():
            raise Refused("ANALYSIS_ERROR", f"{begun}unknown database, database={db}")
        table = self._store.table(db, name)
        if table is None:
            raise Refused("ANALYSIS_ERROR", f"{begun}unknown table, tableName={name}")
        if not is_label(label):
            regex = "^[-_A-Za-z0-9:]{1,128}$"
            text = f"{begun}Label format error. regex: {regex}, label: {label}"
            raise Refused("ANALYSIS_ERROR", text)
        if self._faults.take("label_running") is not None:
            raise LabelUsed(label, 1, "RUNNING")
        return self._store.begin(db, name, label), table

    async def befall(self, name: str) -> None:
        """Let a fault happen here, if it is armed.

        Raises
        ------
        Gone
            The connection is to be dropped.
        """
        seconds = self._faults.take(name)
        if seconds is None:
            return
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("drop"):
            raise Gone
        await asyncio.sleep(seconds)

    def armed(self, name: str) -> float | None:
        """Spend a fault that is for the caller to make: its seconds, or None."""
        return self._faults.take(name)

    def publish(self) -> None:
        """Let committed loads be seen."""
        self._store.publish()

    def put(self, txn: Txn, table: Table, options: LoadOptions, body: bytes) -> "_Outcome":
        """Read a body and commit its rows.

        Raises
        ------
        Refused
            The load fails as a whole; nothing is loaded.
        """
        load.check_columns(table, options)
        computed = load.Computed(options, evaluate)
        found = load.read(table, options, body, computed)
        outcome = _Outcome(found.total, len(found.rows), len(found.errors), found.unselected)
        if found.errors:
            outcome.url = self._keep_errors(found.errors)
        selected = found.total - found.unselected
        if selected and len(found.errors) / selected > options.max_filter_ratio:
            outcome.loaded = 0
            outcome.failure = "[DATA_QUALITY_ERROR]too many filtered rows"
            return outcome
        counts = Counts(outcome.loaded, outcome.filtered, outcome.url, options.merge)
        counts.precommit = options.two_phase
        counts.only = options.only
        counts.late = options.late
        try:
            self._store.commit(txn, table, as_lines(found.rows), counts)
        except (DorisError, duckdb.Error) as e:
            raise Refused("INTERNAL_ERROR", str(e)) from e
        return outcome

    def give_up(self, txn: Txn, message: str, outcome: "_Outcome") -> None:
        """Abort a load."""
        self._store.abort(txn, message, outcome.filtered, outcome.url)

    def _keep_errors(self, errors: list[str]) -> str:
        self._folder.mkdir(exist_ok=True)
        name = f"error_log_insert_stmt_{uuid4().hex[:16]}-{uuid4().hex[:16]}"
        (self._folder / name).write_text("".join(errors[:_ERRORS_KEPT]))
        return f"http://127.0.0.1:{self._port}/api/_load_error_log?file=__shard_0/{name}"

    def _error_log(self, request: Request) -> Response:
        name = parse_qs(request.query).get("file", [""])[0].rpartition("/")[2]
        path = self._folder / name
        plain = {"Content-Type": "text/plain"}
        if not name.startswith("error_log_") or not path.is_file():
            return Response(404, b"file not found", plain)
        return Response(200, path.read_bytes(), plain)


class _Outcome:
    """Counts of a load, and the reason if it failed."""

    def __init__(
        self, total: int = 0, loaded: int = 0, filtered: int = 0, unselected: int = 0
    ) -> None:
        self.total, self.loaded = total, loaded
        self.filtered, self.unselected = filtered, unselected
        self.url = self.failure = ""


class _StreamLoad:
    """One load, from its head to its answer."""

    def __init__(self, backend: Backend, request: Request, db: str, table: str) -> None:
        self._backend = backend
        self._request = request
        self._db, self._table = db, table
        self._began = time.monotonic()
        self._received = 0

    async def answer(self) -> Response:
        """Do it."""
        outcome = _Outcome()
        label = self._request.headers.get("label", "")
        try:
            begun = asyncio.to_thread(self._backend.begin, self._request, self._db, self._table)
            txn, table = await begun
        except LabelUsed as e:
            text = f"[LABEL_ALREADY_EXISTS]TStatus: errCode = 2, detailMessage = {e}"
            return self._result(None, label, "Label Already Exists", text, outcome, e.status)
        except Refused as e:
            return self._result(None, label, "Fail", str(e), outcome)
        try:
            return await self._load(txn, table)
        except Refused as e:
            await asyncio.to_thread(self._backend.give_up, txn, str(e), outcome)
            return self._result(txn, txn.label, "Fail", str(e), outcome)
        except BaseException:
            await asyncio.to_thread(self._backend.give_up, txn, "sender is gone", outcome)
            raise

    async def _load(self, txn: Txn, table: Table) -> Response:
        backend = self._backend
        options = load_headers.options(self._request.headers)
        load.check_columns(table, options)
        try:
            async with asyncio.timeout(options.timeout_s + backend.look_s):
                body = await self._request.body()
                await backend.befall("hang_before_commit")
        except TimeoutError as e:
            raise Refused("ANALYSIS_ERROR", "TStatus: timeout by txn manager") from e
        self._received = len(body)
        await backend.befall("drop_before_commit")
        await backend.befall("crash_before_commit")
        if backend.armed("fail") is not None:
            raise Refused("INTERNAL_ERROR", "tablet error: a fault on demand")
        late = backend.armed("publish_timeout")
        options.late = bool(late) and not options.only
        outcome = await asyncio.to_thread(backend.put, txn, table, options, body)
        if late:
            asyncio.get_running_loop().call_later(late, backend.publish)
        if outcome.failure:
            await asyncio.to_thread(backend.give_up, txn, outcome.failure, outcome)
            return self._result(txn, txn.label, "Fail", outcome.failure, outcome)
        await backend.befall("crash_after_commit")
        await backend.befall("hang_after_commit")
        await backend.befall("drop_after_commit")
        status, message = "Success", "OK"
        if late is not None:
            status = "Publish Timeout"
            message = (
                "[PUBLISH_TIMEOUT]TStatus: transaction commit successfully, "
                "BUT data will be visible later"
            )
        response = self._result(txn, txn.label, status, message, outcome)
        response.cut = backend.armed("cut_answer") is not None
        return response

    def _result(  # the parts of the answer
        self,
        txn: Txn | None,
        label: str,
        status: str,
        message: str,
        outcome: _Outcome,
        existing: str = "",
    ) -> Response:
        two_phase = self._request.headers.get("two_phase_commit") == "true"
        spent = int((time.monotonic() - self._began) * 1000)
        result: dict[str, Any] = {
            "TxnId": txn.id if txn else -1,
            "Label": label,
            "Comment": self._request.headers.get("comment", ""),
            "TwoPhaseCommit": "true" if two_phase else "false",
            "Status": status,
            **({"ExistingJobStatus": existing} if existing else {}),
            "Message": message,
            "NumberTotalRows": outcome.total,
            "NumberLoadedRows": outcome.loaded,
            "NumberFilteredRows": outcome.filtered,
            "NumberUnselectedRows": outcome.unselected,
            "LoadBytes": self._received,
            "LoadTimeMs": spent,
            "BeginTxnTimeMs": 0,
            "StreamLoadPutTimeMs": 0,
            "ReadDataTimeMs": 0,
            "WriteDataTimeMs": spent,
            "ReceiveDataTimeMs": 0,
            "CommitAndPublishTimeMs": 0,
            **({"ErrorURL": outcome.url} if outcome.url else {}),
        }
        return Response.of_json(result)
