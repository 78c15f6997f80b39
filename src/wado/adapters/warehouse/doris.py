"""The warehouse in Apache Doris: Stream Load in, queries over the MySQL protocol."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from wado.adapters.warehouse.doris_load import StreamLoader
from wado.adapters.warehouse.doris_query import Connections
from wado.adapters.warehouse.doris_rows import in_parts, layout
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, InvalidRequest, Unavailable
from wado.records import Table

MOST_LOAD_BYTES = 64 << 20
"""Longest body of one Stream Load. Changing it changes how a batch that comes again is cut."""

_LABEL = re.compile(r"[-_A-Za-z0-9:]{1,128}\Z")
_DATABASE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")
_MYSQL_PORT = 9030
_HTTP_PORT = 8030


class DorisAddress:
    """Where Doris is: ``doris://user:password@fe-1:9030,fe-2:9030/database``.

    Parameters
    ----------
    url
        The address; several frontends (FE) are separated by commas.
    http_url
        ``http://fe-1:8030,http://fe-2:8030``, for Stream Load; empty: port 8030 of the same hosts.

    Raises
    ------
    InvalidRequest
        It is not such an address.
    """

    def __init__(self, url: str, http_url: str = "") -> None:
        parts = urlsplit(url)
        account, _, hosts = parts.netloc.rpartition("@")
        self.user = unquote(account.partition(":")[0]) or "root"
        self.database = parts.path.strip("/")
        if not _DATABASE.match(self.database):
            raise InvalidRequest("warehouse.url names no database: doris://USER@HOST:9030/DATABASE")
        self.hosts = [_host(host) for host in hosts.split(",")]
        names = [url.strip() for url in http_url.split(",") if url.strip()]
        self.frontends = names or [f"http://{host}:{_HTTP_PORT}" for host, _ in self.hosts]
        for name in self.frontends:
            if not re.match(r"https?://[^/@\s]+/?\Z", name):
                raise InvalidRequest("warehouse.http_url is not like http://HOST:8030")
            _host(name.partition("//")[2].rstrip("/"), "warehouse.http_url")


def _host(text: str, setting: str = "warehouse.url") -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or _MYSQL_PORT
    except ValueError:
        host = None
    if not host:
        raise InvalidRequest(f"{setting} names no HOST:PORT where it should")
    return host, port


class DorisWarehouse:
    """A `wado.ports.Warehouse` in Doris; any number of processes may use it.

    Tables and database are made by `wado init`. Texts that are longer than their column are cut
    (not in keys); times come back in UTC with microseconds.

    Parameters
    ----------
    address
        Where it is, and the account.
    password
        Of the account.
    label_prefix
        Begins each label. Labels are of a database, and known for days: who gives a database
        another message log, whose offsets begin anew, changes this.
    connect_timeout_s, query_timeout_s, load_timeout_s
        How long a connection, a query, a load may take until Doris counts as unavailable.
    connections
        Most connections for queries.
    """

    def __init__(
        self,
        address: DorisAddress,
        password: str = "",
        *,
        label_prefix: str = "wado",
        connect_timeout_s: float = 3.0,
        query_timeout_s: float = 30.0,
        load_timeout_s: float = 60.0,
        connections: int = 4,
    ) -> None:
        self._database = address.database
        self._label_prefix = label_prefix
        self._most_load_bytes = MOST_LOAD_BYTES
        self._loader = StreamLoader(
            address.frontends,
            user=address.user,
            password=password,
            database=address.database,
            connect_timeout_s=connect_timeout_s,
            load_timeout_s=load_timeout_s,
        )
        self._connections = Connections(
            address.hosts,
            user=address.user,
            password=password,
            database=address.database,
            connect_timeout_s=connect_timeout_s,
            query_timeout_s=query_timeout_s,
            most=connections,
        )

    def load(self, table: Table, rows: Sequence[bytes], label: str) -> bool:
        """Load rows (one JSON object each); False if the label was loaded before.

        More rows than one load can take are loaded in parts, each with a label of its own; the
        same rows are always cut the same way. No rows are no load, and leave no label.
        """
        parts = in_parts(layout(table).lines(rows), self._most_load_bytes)
        name = self._label(table, label)
        if not parts:
            return True
        if len(parts) == 1:
            return self._loader.load(table, parts[0], name)
        loaded = False
        for number, part in enumerate(parts, 1):
            try:
                loaded |= self._loader.load(table, part, self._label(table, f"{label}:{number}"))
            except InvalidMessage as e:
                if number == 1:
                    raise
                # Those before it are loaded: as dead letters, or one by one, they would be twice.
                raise Unavailable(f"part {number} of {len(parts)} of {name}: {e}") from e
        return loaded

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a read-only query of our own making; ``?`` stands for a parameter."""
        return self._connections.query(sql, parameters)

    def delete(self, series: SeriesRef, sop_instance_uids: Sequence[str], label: str = "") -> None:
        """Remove instances from `dicom_image_meta`, by a load of their keys; under a label, once.

        Unlike a DELETE statement, that takes its place behind every load before it, also one
        that is committed and not visible yet.
        """
        of = layout("dicom_image_meta")
        keys = (
            (series.tenant_id, series.study_instance_uid, series.series_instance_uid, uid)
            for uid in sop_instance_uids
        )
        label = label or f"delete-{uuid.uuid4().hex}"
        parts = in_parts(of.key_lines(keys), self._most_load_bytes)
        for number, part in enumerate(parts, 1):
            name = self._label(of.table, f"{label}:{number}")
            self._loader.load(of.table, part, name, delete=True)

    def clear(self, table: Table) -> None:
        """Remove all rows of a table, before a rebuild; labels stay."""
        self._connections.run(f"TRUNCATE TABLE `{layout(table).table}`")

    def count(self, table: Table, tenant_id: str | None = None) -> int:
        """Count the rows of a table (of one tenant, or of all)."""
        sql = f"SELECT count(*) AS n FROM `{layout(table).table}`"  # noqa: S608 - our names
        if tenant_id is None:
            return int(self.query(sql)[0]["n"])
        return int(self.query(f"{sql} WHERE tenant_id = ?", [tenant_id])[0]["n"])

    def close(self) -> None:
        """Let go of the connections."""
        self._connections.close()

    def _label(self, table: Table, label: str) -> str:
        """Name a load among those of all tables; what Doris does not take as a label is hashed."""
        name = f"{self._label_prefix}-{table}-{label}"
        if _LABEL.match(name):
            return name
        digest = hashlib.sha256(label.encode()).hexdigest()
        return f"{self._label_prefix}-{table}-{digest}"
