"""What came of transcoding, as JSON: for the statistics page, and for who asks."""

from datetime import UTC, datetime, timedelta

import orjson

from wado.errors import InvalidRequest
from wado.services.server.calls import Answer, Call, json_answer
from wado.services.server.service import Service

_DAYS = 30
"""How far back is counted by default."""


def transcoding(service: Service, call: Call) -> Answer:
    """Count copies that were made, and those that could not be, since a time.

    Raises
    ------
    InvalidRequest
        ``since`` is no time.
    Unavailable
        The warehouse does not answer.
    """
    counted = service.statistics.of(call.tenant_id, _since(call.parameter("since")))
    answer = json_answer(orjson.dumps(counted))
    answer.headers.append(("cache-control", "no-store"))
    return answer


def _since(text: str | None) -> str:
    """Read a time; without, one some days ago: of whole minutes, so that many ask the same."""
    if not text:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        return _written(now - timedelta(days=_DAYS))
    try:
        time = datetime.fromisoformat(text.replace(" ", "+"))
        return _written(time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as e:
        raise InvalidRequest(f"since is a time in ISO 8601, or a date: not {text[:40]!r}") from e


def _written(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")
