"""Content-Encoding (RFC 9110 §8.4): gzip for text, if the client takes it."""

from functools import lru_cache

from wado.dicom.media_types import quality
from wado.services.server.calls import Call

ON_THE_WAY = 1
"""Level of what is composed for one answer: twice as fast as the next, and nearly as small."""


def wants_gzip(call: Call) -> bool:
    """Whether the client takes gzip, and does not like it less than the plain text."""
    return prefers_gzip(call.headers.get("accept-encoding") or "")


@lru_cache(maxsize=64)
def prefers_gzip(header: str) -> bool:
    """Read an Accept-Encoding (RFC 9110 §12.5.3); an empty one asks for no coding."""
    named: dict[str, float] = {}
    for item in header.split(","):
        name, _, parameters = item.partition(";")
        key, _, text = parameters.partition("=")
        q = quality(text.strip()) if key.strip().lower() == "q" else 1.0
        named.setdefault(name.strip().lower(), q)
    gzip = named.get("gzip", named.get("x-gzip", named.get("*", 0.0)))
    return gzip > 0 and gzip >= named.get("identity", 0.0)
