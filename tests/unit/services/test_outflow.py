"""Pipes by which long bodies go out: no faster than they are read, and given up in time."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsgi import run_alone
from wado.services.server import outflow
from wado.services.server.outflow import Pipes

DATA = bytes(range(256)) * 20_000


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    with Pipes(stall_timeout_s=0.2) as pipes:
        yield pipes


def test_what_is_written_is_read_and_no_name_stays(pipes: Pipes):
    pipe = pipes.make()

    async def send() -> bytes:
        reading = asyncio.create_task(asyncio.to_thread(Path(pipe.path).read_bytes))
        async with pipe:
            await pipe.write(DATA)
            await pipe.write(bytearray(b"end"))
        return await reading

    assert run_alone(send()) == DATA + b"end"
    assert not Path(pipe.path).exists()


def test_a_reader_that_takes_nothing_is_given_up(pipes: Pipes):
    async def send() -> None:
        pipe = pipes.make()
        opening = asyncio.create_task(asyncio.to_thread(Path(pipe.path).open, "rb"))
        async with pipe:
            with await opening:
                await pipe.write(DATA)

    with pytest.raises(TimeoutError):
        run_alone(send())


def test_a_reader_that_leaves_is_noticed(pipes: Pipes):
    async def send() -> None:
        pipe = pipes.make()
        opening = asyncio.create_task(asyncio.to_thread(Path(pipe.path).open, "rb"))
        async with pipe:
            (await opening).close()
            await pipe.write(DATA)

    with pytest.raises(BrokenPipeError):
        run_alone(send())


def test_a_reader_that_never_comes_is_not_waited_for(pipes: Pipes, monkeypatch):
    monkeypatch.setattr(outflow, "_OPENED_WITHIN_S", 0.05)
    pipe = pipes.make()

    async def send() -> None:
        async with pipe:
            pytest.fail("nobody reads")

    with pytest.raises(TimeoutError):
        run_alone(send())
    assert not Path(pipe.path).exists()
