"""The body of an answer: read whole when it is small, else sent piece by piece with flat memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from time import monotonic
from urllib.parse import quote

from wado.archive.pieces import Computed, FileSlice, OpenFiles, Piece, cut, piece_length
from wado.services.server.calls import Answer, Call
from wado.services.server.exchange import Sender
from wado.services.server.outflow import FileRange
from wado.services.server.service import Service

WHOLE_BYTES = 64 << 10
"""Bodies up to this size are read at once; files that are longer go out by sendfile."""
_LEFT_BYTES = 256 << 10
"""Of what is shorter, a proxy gets as many a second from us as it reads itself."""
CHUNK_BYTES = 512 << 10
_FLUSH_S = 0.1
"""How long pieces that come slowly are gathered."""
_KEPT_BY_PROXY = frozenset({"accept-ranges", "cache-control", "content-disposition"})
_FEW_BYTES = 32 << 10
"""Pieces that are smaller on average are gathered: a system call for each would cost more."""


def whole_at_once(service: Service, answer: Answer) -> bytes | None:
    """Read a small body if all of it lies in memory, else None."""
    if answer.stream is not None or sum(map(piece_length, answer.pieces)) > WHOLE_BYTES:
        return None
    buffer = _buffer(answer.pieces)
    with buffer.getbuffer() as body:
        if not _filled(body, answer.pieces, service.files.read_at_once):
            return None
    return buffer.getvalue()


async def whole(service: Service, answer: Answer) -> bytes:
    """Read the body: on the event loop if all of it lies in memory, else in a thread.

    Raises
    ------
    NotFound
        A file was replaced since the handler looked: ask it again.
    """
    pieces = answer.pieces
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    buffer = _buffer(pieces)
    with buffer.getbuffer() as body:
        if not _filled(body, pieces, service.files.read_at_once):
            read = service.files.read_into
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(service.threads, _filled, body, pieces, read)
    return buffer.getvalue()


def _buffer(pieces: Sequence[Piece]) -> BytesIO:
    """Make a buffer of the length of the pieces.

    Joining them would copy them once more. This becomes `bytes` without a copy, as it is written
    to its end and nothing else holds it.
    """
    buffer = BytesIO()
    length = sum(map(piece_length, pieces))
    if length:
        buffer.seek(length - 1)
        buffer.write(b"\0")
    return buffer


def _filled(
    body: memoryview, pieces: Sequence[Piece], read: Callable[[Piece, memoryview], bool | None]
) -> bool:
    """Fill the body piece by piece; False if `read` gave up."""
    at = 0
    for piece in pieces:
        end = at + piece_length(piece)
        with body[at:end] as target:
            if read(piece, target) is False:
                return False
        at = end
    return True


def left_to_proxy(service: Service, call: Call, answer: Answer) -> Answer:
    """Leave a body that is a file, or a range of one, to the proxy if it wants that.

    It reads the file itself, and works out ranges as we would.
    """
    location = service.settings.x_accel_location
    if not location or call.headers.get("x-sendfile-type") != "X-Accel-Redirect":
        return answer
    file = answer.pieces[0] if len(answer.pieces) == 1 and answer.stream is None else None
    if not isinstance(file, FileSlice) or call.method != "GET" or file.length < _LEFT_BYTES:
        return answer
    store = service.archive.store
    found = store.version(file.path) if store.local_path(file.path) is not None else None
    if found is None or _whole_length(answer, file) != found[1]:
        return answer
    headers = [*_for_proxy(answer)]
    headers.append(("x-accel-redirect", f"{location}/{quote(file.path)}"))
    return replace(answer, headers=headers, pieces=(), left_bytes=file.length)


def _for_proxy(answer: Answer) -> Iterator[tuple[str, str]]:
    """Leave out the header that nginx makes; rename those that it would keep for what follows.

    If it can't read the file it asks again, and those of this answer would join the next one's.
    """
    is_part = answer.status == HTTPStatus.PARTIAL_CONTENT
    for name, value in answer.headers:
        if name != ("content-range" if is_part else "accept-ranges"):
            yield (f"x-left-{name}" if name in _KEPT_BY_PROXY else name), value


def _whole_length(answer: Answer, file: FileSlice) -> int:
    """Length that the file has if the answer is all of it, or a range in the client's sense."""
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        return file.length if not file.offset else -1
    chosen, _, length = dict(answer.headers)["content-range"].rpartition("/")
    start = chosen.removeprefix("bytes ").partition("-")[0]
    return int(length) if start == str(file.offset) else -1


async def make_ready(service: Service, answer: Answer) -> None:
    """Open the first file of a body, so that it is known to be there.

    Raises
    ------
    NotFound
        It was replaced since the handler looked: ask it again.
    """
    first = next((p for p in answer.pieces if isinstance(p, FileSlice)), None)
    if first is not None:
        await _open(service, first)


async def _open(service: Service, piece: FileSlice) -> None:
    if not service.files.is_open(piece):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(service.threads, service.files.open, piece)


async def deliver(service: Service, answer: Answer, sender: Sender) -> int:
    """Send the body, files by sendfile; how many bytes were sent.

    Raises
    ------
    EOFError, NotFound
        A file is shorter than it was, or gone: what was sent is not whole.
    """
    pieces = answer.pieces
    length = sum(map(piece_length, pieces))
    if answer.stream is not None or length < _FEW_BYTES * len(pieces):
        return await _deliver_gathered(service, answer, sender)
    for number, piece in enumerate(pieces, 1):
        match piece:
            case bytes():
                await sender.send(piece, more=number < len(pieces))
            case FileSlice():
                await _open(service, piece)
                with service.files.lent(piece) as fd:
                    if fd is None:
                        return await _deliver_gathered(service, answer, sender, number - 1)
                    await sender.send_file(FileRange(fd, piece.offset, piece.length))
            case Computed():
                threads = service.pixel_threads if answer.slow else service.threads
                make = service.files.bytes_of
                data = await asyncio.get_running_loop().run_in_executor(threads, make, piece)
                await sender.send(data, more=number < len(pieces))
                del data  # not held while the next is worked out
    return length


async def _deliver_gathered(service: Service, answer: Answer, sender: Sender, skip: int = 0) -> int:
    sent = sum(map(piece_length, answer.pieces[:skip]))
    made = _slow_chunks if answer.slow else chunks
    async with aclosing(made(service, answer, skip)) as source:
        async for data in source:
            await sender.send(data)
            sent += len(data)
            del data  # not held while the next is made
    return sent


async def chunks(service: Service, answer: Answer, skip: int = 0) -> AsyncGenerator[bytearray]:
    """Read the body chunk by chunk; while one is sent, the next is read in a thread.

    A chunk is valid until the next but one is asked for: two buffers take turns, so that a long
    stream allocates nothing. The first `skip` pieces are left out.
    """
    source = _chunks(service.files, _pieces(answer, skip))
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(service.threads, next, source, None)
    try:
        while (chunk := await reading) is not None:
            reading = loop.run_in_executor(service.threads, next, source, None)
            yield chunk
    finally:
        await asyncio.wait([reading])
        source.close()


def _pieces(answer: Answer, skip: int) -> Iterable[Piece]:
    return answer.pieces[skip:] if answer.stream is None else answer.stream


def _chunks(files: OpenFiles, pieces: Iterable[Piece]) -> Generator[bytearray]:
    """Fill buffers with what the pieces are together; all chunks but the last are full."""
    buffer, other = bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    filled = 0
    for piece in pieces:
        if isinstance(piece, Computed):
            piece = files.bytes_of(piece)  # noqa: PLW2901 - once, not for each chunk of it
        start, length = 0, piece_length(piece)
        while start < length:
            count = min(length - start, CHUNK_BYTES - filled)
            (part,) = cut((piece,), start, start + count)
            with memoryview(buffer) as view, view[filled : filled + count] as target:
                files.read_into(part, target)
            start, filled = start + count, filled + count
            if filled == CHUNK_BYTES:
                yield buffer
                buffer, other, filled = other, buffer, 0
    if filled:
        del buffer[filled:]
        yield buffer


def _steps(piece: Piece) -> Iterable[Piece]:
    """Cut a long range of a file, which may be as long as the file."""
    if not isinstance(piece, FileSlice):
        return (piece,)
    starts = range(0, piece.length, CHUNK_BYTES)
    return (part for start in starts for part in cut((piece,), start, start + CHUNK_BYTES))


async def _slow_chunks(service: Service, answer: Answer, skip: int) -> AsyncGenerator[bytes]:
    """Work out the body step by step, each when the one before was sent.

    Who reads slowly holds one piece then, and for who goes away no more than one is made.
    """
    source = _gathered(service.files, _pieces(answer, skip))
    try:
        while True:
            step = service.pixel_threads.submit(next, source, None)
            making = asyncio.wrap_future(step)
            try:
                chunk = await making
            finally:
                if not step.cancel():  # what runs must end before the source is closed
                    await asyncio.wait([making])
            if chunk is None:
                return
            yield chunk
            del chunk
    finally:
        source.close()


def _gathered(files: OpenFiles, pieces: Iterable[Piece]) -> Generator[bytes]:
    """Read or work out pieces; small ones are joined for a while, long files cut."""
    held: list[bytes] = []
    size, due = 0, monotonic() + _FLUSH_S
    for piece in pieces:
        length = piece_length(piece)
        if held and (size + length > WHOLE_BYTES or monotonic() > due):
            yield b"".join(held)
            held.clear()
            size = 0
        if length > WHOLE_BYTES:
            yield from map(files.bytes_of, _steps(piece))
            due = monotonic() + _FLUSH_S
            continue
        if not held:
            due = monotonic() + _FLUSH_S
        held.append(files.bytes_of(piece))
        size += length
    if held:
        yield b"".join(held)
