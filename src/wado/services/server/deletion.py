"""DELETE of studies, series and instances, as archives in wide use offer it."""

import asyncio
import time
from collections.abc import AsyncIterable

from wado.archive.delete import Ref, is_done, must_exist, request_deletion
from wado.archive.journal import RECENT_S
from wado.records import DicomDeleteMeta
from wado.services.server.calls import CROSS_ORIGIN, Answer, Call, json_answer
from wado.services.server.service import Service

_POLL_S = 0.01
_RETRY_AFTER_S = 5


async def delete(service: Service, call: Call, _body: AsyncIterable[bytes]) -> Answer:
    """Delete what the path names: 204 once nobody is given it any more, 202 if that takes long."""
    ref = _ref(call)
    loop = asyncio.get_running_loop()
    meta = await loop.run_in_executor(service.threads, _request, service, call, ref)
    deadline = time.monotonic() + service.settings.delete_wait_s
    while not is_done(service.archive, meta):
        if time.monotonic() > deadline:
            return _accepted(call)
        await asyncio.sleep(_POLL_S)
    # Every process looks at a journal that often: then none has an answer left from before.
    await asyncio.sleep(RECENT_S)
    return Answer(204, [*CROSS_ORIGIN])


def _ref(call: Call) -> Ref:
    if "instance" in call.params:
        return call.instance
    return call.series if "series" in call.params else call.study


def _request(service: Service, call: Call, ref: Ref) -> DicomDeleteMeta:
    must_exist(service.archive, service.journals, ref)
    return request_deletion(
        service.archive, ref, user_name=call.user_name, source_address=call.client
    )


def _accepted(call: Call) -> Answer:
    reason = "the deletion is on its way; until it is done, what is stored again goes with it"
    answer = json_answer({"status": 202, "reason": reason, "path": call.path}, status=202)
    answer.headers.append(("retry-after", str(_RETRY_AFTER_S)))
    return answer
