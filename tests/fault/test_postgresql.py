"""PostgreSQL dies, hangs, and comes back: nothing acknowledged is lost, nobody waits for ever."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

import real
from backing import postgresql
from contract.indexes import search, state
from freezing import freeze, runs, thaw
from service import wait_until
from wado.adapters.index.postgresql import PostgresqlIndex
from wado.adapters.index.postgresql_schema import prepare
from wado.errors import OutOfResources, Unavailable
from wado.ports import Match

BOUND_S = 30.0
"""Many times what one answer is waited for, as a machine under test is busy."""

PATIENCE_S = 60.0
"""For a server that is there."""


class Installation:
    """A PostgreSQL of one test's own, which may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program, self.superuser_url = postgresql.server(folder)
        self.port = int(psycopg.conninfo.conninfo_to_dict(self.superuser_url)["port"] or 0)
        self.url = postgresql.url_of(folder, self.port)

    def prepare(self) -> None:
        """Start it for the first time, with empty tables."""
        self.program.start()
        self.program.wait()
        postgresql.prepare(self.superuser_url)
        owner = postgresql.url_of(self.folder, self.port, user=postgresql.OWNER)
        prepare(self.url, owner, timeout_s=PATIENCE_S)

    def again(self) -> None:
        """Start it again in the same folder, at the same port."""
        self.program, _ = postgresql.server(self.folder, self.port)
        self.program.start()
        self.program.wait()

    def freeze(self) -> list[int]:
        """Stop the server, and its processes, each of which is a session of its own."""
        freeze(self.program.pid)  # so that it starts no more of them
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text()
        pids = [self.program.pid, *map(int, children.split())]
        freeze(*pids)
        return pids

    def kill(self) -> None:
        """End all at once; while one of them lives, no other server starts in the folder."""
        if not self.program.alive:
            return
        pids = self.freeze()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.program.kill()
        wait_until(lambda: not any(map(runs, pids)), timeout_s=60, reason="all have ended")

    def stop(self) -> None:
        """Let it end as an operator does, however long that takes."""
        os.kill(self.program.pid, self.program.stop_signal)
        wait_until(lambda: not self.program.alive, timeout_s=120, reason="it stops")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    real.require("postgresql")
    installation = Installation(tmp_path / "postgresql")
    try:
        installation.prepare()
        yield installation
    finally:
        installation.kill()


@pytest.fixture
def index(installed: Installation) -> Iterator[PostgresqlIndex]:
    """One that waits for a server that is busy, and so hears only of what was done to it."""
    with closing(PostgresqlIndex(installed.url, timeout_s=PATIENCE_S)) as opened:
        yield opened


@pytest.fixture
def hasty(installed: Installation) -> Iterator[PostgresqlIndex]:
    """One without patience, whose connection is open."""
    with closing(PostgresqlIndex(installed.url, timeout_s=2)) as opened:
        _eventually(lambda: search(opened))
        yield opened


def _eventually(act: Callable[[], object]) -> None:
    """Try again until the index answers, by itself."""
    deadline = time.monotonic() + 120
    while True:
        try:
            act()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_what_was_flushed_outlives_the_server(
    installed: Installation, index: PostgresqlIndex
) -> None:
    flushed: list[int] = []
    unsure: list[int] = []
    enough = threading.Event()

    def put() -> None:
        mine = PostgresqlIndex(installed.url, timeout_s=PATIENCE_S)
        for n in range(100_000):
            unsure.append(n)
            batch = [state(f"1.{n}", str(k), study_id=str(n)) for k in range(5)]
            try:
                mine.put(batch, flush=n % 2 == 0)
                mine.flush()
            except Unavailable:
                break
            flushed.append(unsure.pop())
            if n == 40:
                enough.set()
        mine.close()

    writer = threading.Thread(target=put)
    writer.start()
    assert enough.wait(120)
    installed.kill()
    writer.join(60)
    assert not writer.is_alive()
    installed.again()
    rows = {row["study_id"]: row for row in search(index, limit=200_000)}
    assert {str(n) for n in flushed} <= rows.keys()
    assert rows.keys() <= {str(n) for n in flushed + unsure}
    for row in rows.values():  # whole batches, or nothing of them
        assert row["number_of_study_related_series"] == 5


def test_a_put_lost_in_a_crash_is_not_called_durable(
    installed: Installation, index: PostgresqlIndex
) -> None:
    index.put([state("1.1")])
    index.put([state("1.2")], flush=False)
    installed.kill()
    installed.again()
    with pytest.raises(Unavailable, match="crash"):
        index.flush()
    index.put([state("1.2")], flush=False)
    index.flush()
    assert len(search(index)) == 2


def test_a_put_that_waits_through_an_ordinary_restart_is_kept(
    installed: Installation, index: PostgresqlIndex
) -> None:
    index.put([state()], flush=False)
    installed.stop()
    installed.again()
    index.flush()
    assert len(search(index)) == 1


def test_a_server_that_is_away_is_unavailable_and_comes_back(
    installed: Installation, index: PostgresqlIndex
) -> None:
    index.put([state()])
    installed.stop()
    for act in (
        lambda: index.put([state("1.3")]),
        lambda: search(index),
        lambda: list(index.all_series()),
        lambda: index.awaiting_description(1),
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            act()
        assert time.monotonic() - began < BOUND_S
        assert (installed.folder / "password").read_text().strip() not in str(raised.value)
    installed.again()
    index.put([state("1.3")])  # at once: the connections that were cut are replaced
    assert len(search(index)) == 2


def test_a_server_that_hangs_is_not_waited_for(
    installed: Installation, index: PostgresqlIndex, hasty: PostgresqlIndex
) -> None:
    index.put([state()])
    pids = installed.freeze()
    for act in (lambda: hasty.put([state("1.3")]), lambda: search(hasty), lambda: search(hasty)):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            act()
        assert time.monotonic() - began < BOUND_S
    thaw(*pids)
    _eventually(lambda: search(hasty))
    _eventually(lambda: hasty.put([state("1.3")]))
    assert len(search(index)) == 2


def test_a_connection_that_is_cut_is_replaced(
    installed: Installation, index: PostgresqlIndex
) -> None:
    for cut in range(3):
        index.put([state(f"1.{cut}")])
        assert len(search(index)) == cut + 1
        with psycopg.connect(installed.superuser_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE application_name = 'wado'"
            )  # which waits until they are gone


def test_a_lock_that_another_holds_is_waited_for_within_bounds(
    installed: Installation, index: PostgresqlIndex, hasty: PostgresqlIndex
) -> None:
    index.put([state()])
    superuser = postgresql.url_of(installed.folder, installed.port, user=postgresql.SUPERUSER)
    with psycopg.connect(superuser) as connection:
        connection.execute("SELECT 1 FROM study FOR UPDATE")
        began = time.monotonic()
        # The server breaks off after two seconds; one that is busy is not waited for longer.
        with pytest.raises(Unavailable, match=r"timeout|no answer"):
            hasty.put([state(study_id="2")])
        assert time.monotonic() - began < BOUND_S
    index.put([state(study_id="2")])
    assert len(search(index, Match("study_id", "single", ("2",)))) == 1


def test_a_read_only_server_is_unavailable(installed: Installation, index: PostgresqlIndex) -> None:
    index.put([state()])
    superuser = postgresql.url_of(installed.folder, installed.port, user=postgresql.SUPERUSER)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("ALTER DATABASE wado SET default_transaction_read_only = on")
    with (
        closing(PostgresqlIndex(installed.url, timeout_s=PATIENCE_S)) as other,
        pytest.raises(Unavailable),
    ):
        other.put([state("1.3")])
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER DATABASE wado RESET default_transaction_read_only")
    with closing(PostgresqlIndex(installed.url, timeout_s=PATIENCE_S)) as other:
        other.put([state("1.3")])


def test_a_server_without_space_is_out_of_resources(installed: Installation) -> None:
    """A quota on a temporary file stands for a full disk, which a test must not make."""
    superuser = postgresql.url_of(installed.folder, installed.port, user=postgresql.SUPERUSER)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("ALTER DATABASE wado SET temp_file_limit = '1MB'")
        connection.execute("ALTER DATABASE wado SET work_mem = '64kB'")
    long = "x" * 120
    states = [
        state(f"1.{n}", series_description=long, study_description=long) for n in range(20_000)
    ]
    with closing(PostgresqlIndex(installed.url, timeout_s=120)) as index:
        with pytest.raises(OutOfResources):
            index.put(states)
        assert not search(index)
        index.put(states[:10])
        assert len(search(index)) == 10


def test_who_answers_but_is_no_server_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        index = PostgresqlIndex(f"postgresql://wado:secret@127.0.0.1:{port}/wado", timeout_s=2)
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            search(index)
        assert time.monotonic() - began < BOUND_S
        assert "secret" not in str(raised.value)
        index.close()
