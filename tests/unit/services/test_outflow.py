"""Long bodies straight to a socket: no faster than they are read, and given up in time."""

import asyncio
import os
import socket
from pathlib import Path
from threading import Event

import pytest

from wado.services.server.outflow import FileRange, Outflow
from web import run_alone

SIZE = 5 << 20


def test_what_is_sent_arrives_in_order(tmp_path: Path):
    (tmp_path / "file").write_bytes(data := os.urandom(SIZE))

    async def sent() -> bytes:
        ours, theirs = socket.socketpair()
        outflow = Outflow(ours.fileno(), 60.0)
        ours.close()

        def read() -> bytes:
            with theirs:
                got = b""
                while piece := theirs.recv(1 << 20):
                    got += piece
                return got

        reading = asyncio.create_task(asyncio.to_thread(read))
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        try:
            await outflow.send(b"before ", more=True)
            await outflow.send_file(FileRange(fd, 0, SIZE))
            await outflow.send(data[:100])
        finally:
            os.close(fd)
            outflow.close()
        return await reading

    assert run_alone(sent()) == b"before " + data + data[:100]


async def to_nobody(stall_timeout_s: float, *, gone: bool) -> None:
    ours, theirs = socket.socketpair()
    outflow = Outflow(ours.fileno(), stall_timeout_s)
    with ours, theirs:
        if gone:
            asyncio.get_running_loop().call_later(0.05, outflow.close)
        try:
            await outflow.send(bytes(SIZE))
        finally:
            outflow.close()


def test_a_reader_that_takes_nothing_is_given_up():
    with pytest.raises(TimeoutError):
        run_alone(to_nobody(0.1, gone=False))


def test_who_waits_learns_that_the_reader_has_left():
    with pytest.raises(ConnectionResetError):
        run_alone(to_nobody(60.0, gone=True))


def test_a_file_that_ends_early_is_noticed(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"short")

    async def sent() -> None:
        ours, theirs = socket.socketpair()
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        outflow = Outflow(ours.fileno(), 60.0)
        try:
            with ours, theirs:
                await outflow.send_file(FileRange(fd, 0, 100))
        finally:
            outflow.close()
            os.close(fd)

    with pytest.raises(EOFError):
        run_alone(sent())


def test_a_socket_in_use_by_a_thread_is_closed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its number may be another client's the moment after, who would be sent the file."""
    (tmp_path / "file").write_bytes(bytes(SIZE))
    at: list[tuple[int, int]] = []

    async def sent() -> None:
        ours, theirs = socket.socketpair()
        outflow = Outflow(ours.fileno(), 60.0)
        number = outflow._socket.fileno()
        loop, was_closed = asyncio.get_running_loop(), Event()

        def close() -> None:
            outflow.close()
            was_closed.set()

        def sendfile(out: int, *_: int) -> int:
            loop.call_soon_threadsafe(close)
            assert was_closed.wait(60)
            at.append((out, os.fstat(number).st_ino))
            return 10

        monkeypatch.setattr("wado.services.server.outflow._in_memory", lambda *_: False)
        monkeypatch.setattr(os, "sendfile", sendfile)
        with ours, theirs:
            await outflow.send_file(FileRange(0, 0, 100))
        assert outflow._socket.fileno() == -1

    with pytest.raises(ConnectionResetError):
        run_alone(sent())
    assert len(at) == 1


def test_what_is_sent_at_once_gives_others_their_turn(tmp_path: Path):
    """A reader as quick as we are would hold the event loop until it has a whole long file."""
    (tmp_path / "file").write_bytes(bytes(4 * SIZE))

    async def left() -> int:
        ours, theirs = socket.socketpair()
        outflow = Outflow(ours.fileno(), 60.0)

        def read() -> None:
            with theirs:
                while theirs.recv(1 << 20):
                    pass

        reading = asyncio.create_task(asyncio.to_thread(read))
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        try:
            rest = outflow.send_at_once([b"head", FileRange(fd, 0, 4 * SIZE)])
        finally:
            os.close(fd)
            outflow.close()
            ours.close()
        await reading
        assert isinstance(rest[0], FileRange)
        return rest[0].length

    assert run_alone(left()) >= 4 * SIZE - (4 << 20)
