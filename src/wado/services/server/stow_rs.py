"""STOW-RS (PS3.18 §10.5): parts go to `archive.store` as they come; nothing holds a whole one."""

import asyncio
import time
from collections.abc import AsyncIterable, Sequence

from wado.archive.journal import SeriesView
from wado.errors import InvalidRequest, UnsupportedMediaType
from wado.services.server.calls import Answer, Call
from wado.services.server.service import Service
from wado.services.server.store_response import Done, chosen_media_type, response
from wado.services.server.upload import Upload

_FEED_BYTES = 512 << 10
"""Bytes gathered before they go to a thread: the change of threads then costs nothing."""
_FIRST_POLL_S, _LONGEST_POLL_S = 0.001, 0.02
"""Between looks for what was stored: often at first, as one instance is there within milliseconds;
rarely later, as then many others wait, too."""


async def store(service: Service, call: Call, body: AsyncIterable[bytes]) -> Answer:
    """Store instances; answers when they are safe and, for a while, until they are searchable."""
    media_type = chosen_media_type(call)
    coding = (call.headers.get("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType(f"bodies with Content-Encoding {coding[:40]} are not stored")
    study = call.study if "study" in call.params else None
    upload = Upload(service, call, study)
    loop = asyncio.get_running_loop()
    try:
        async for data in _gathered(body, service.settings.stall_timeout_s):
            await loop.run_in_executor(service.intake, upload.feed, data)
        await loop.run_in_executor(service.intake, upload.finish)
    except BaseException as e:
        # Behind what a thread may still do with it; who went away is not waited for.
        aborted = loop.run_in_executor(service.intake, upload.abort)
        if not isinstance(e, asyncio.CancelledError):
            await aborted
        raise
    await _until_visible(service, upload.results.stored)
    return response(call, upload.results, study, media_type)


async def _gathered(body: AsyncIterable[bytes], stall_timeout_s: float) -> AsyncIterable[bytes]:
    held: list[bytes] = []
    size = 0
    async for data in _steady(body, stall_timeout_s):
        held.append(data)
        size += len(data)
        if size >= _FEED_BYTES:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _steady(body: AsyncIterable[bytes], stall_timeout_s: float) -> AsyncIterable[bytes]:
    """Pass a body on; a client that sends nothing for so long is not waited for."""
    pieces = aiter(body)
    while True:
        try:
            async with asyncio.timeout(stall_timeout_s):
                data = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as e:
            raise InvalidRequest(f"no more of the body came for {stall_timeout_s:g} s") from e
        yield data


def _was_seen(view: SeriesView | None, sop_instance_uid: str, received_at: str) -> bool:
    """Whether an instance is visible, or was until it was deleted."""
    if view is None:
        return False
    return sop_instance_uid in view.entries or view.deleted.get(sop_instance_uid, "") > received_at


async def _until_visible(service: Service, stored: Sequence[Done]) -> None:
    """Wait until searches and metadata show what was stored, but no longer than the setting."""
    deadline = time.monotonic() + service.settings.stow_visible_wait_s
    pause_s = _FIRST_POLL_S
    waiting = {done.ref: done.received_at for done in stored if done.received_at}
    while waiting and time.monotonic() < deadline:
        views = {at: service.journals.memory(at) for at in {ref.series for ref in waiting}}
        waiting = {
            ref: received_at
            for ref, received_at in waiting.items()
            if not _was_seen(views[ref.series], ref.sop_instance_uid, received_at)
        }
        if waiting:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_POLL_S)
