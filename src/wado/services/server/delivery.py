"""The body of an answer: read whole when it is small, else chunk after chunk with flat memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from io import BytesIO

from wado.archive.pieces import Computed, OpenFiles, Piece, cut, piece_length
from wado.services.server.calls import Answer
from wado.services.server.service import Service

WHOLE_BYTES = 4 << 20
"""Bodies up to this size are read at once: one system call, and no change of threads."""
CHUNK_BYTES = 512 << 10


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
    length = sum(map(piece_length, pieces))
    if not length:
        return b""
    # Joining pieces would copy them once more, and granian copies all that is not `bytes`. This
    # buffer becomes `bytes` without a copy, as it is written to its end and nothing else holds it.
    buffer = BytesIO()
    buffer.seek(length - 1)
    buffer.write(b"\0")
    with buffer.getbuffer() as body:
        if not _filled(body, pieces, service.files.read_at_once):
            read = service.files.read_into
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(service.threads, _filled, body, pieces, read)
    return buffer.getvalue()


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


async def chunks(service: Service, answer: Answer) -> AsyncGenerator[bytearray]:
    """Read the body chunk by chunk; while one is sent, the next is read in a thread.

    A chunk is valid until the next but one is asked for: two buffers take turns, so that a long
    stream allocates nothing.
    """
    pieces = answer.pieces if answer.stream is None else answer.stream
    source = _chunks(service.files, pieces)
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(service.threads, next, source, None)
    try:
        while (chunk := await reading) is not None:
            reading = loop.run_in_executor(service.threads, next, source, None)
            yield chunk
    finally:
        await asyncio.wait([reading])
        source.close()


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
