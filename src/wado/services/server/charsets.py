"""Character sets (PS3.18 §8.8): all text goes out as UTF-8; who refuses that gets 406."""

import re
from functools import lru_cache

from wado.errors import NotAcceptable
from wado.services.server.calls import Call

_UTF_8 = frozenset({"utf-8", "utf8", "unicode-1-1-utf-8", "iso_ir 192"})
"""Names under which a client asks for UTF-8: those of IANA, and the term of DICOM."""
_NEVER = re.compile(r"q\s*=\s*0(?:\.0*)?\Z")
_TEXTUAL = ("text/", "application/json", "+json", "+xml", "/xml")


@lru_cache(maxsize=256)
def gives_text(media_types: tuple[str, ...]) -> bool:
    """Whether all media types of a route are text, for which a character set can be asked."""
    return bool(media_types) and all(
        any(kind in media_type for kind in _TEXTUAL) for media_type in media_types
    )


def check_charset(call: Call) -> None:
    """Check that the client takes UTF-8: the ``charset`` parameter stands before Accept-Charset.

    Raises
    ------
    NotAcceptable
        It names other character sets only.
    """
    wanted = call.parameter("charset") or call.headers.get("accept-charset")
    if wanted and not takes_utf_8(wanted):
        raise NotAcceptable(f"text is given in UTF-8, which is not among {wanted[:80]!r}")


@lru_cache(maxsize=64)
def takes_utf_8(wanted: str) -> bool:
    """Whether a list of character sets, each with an optional q-value, has UTF-8 or all in it."""
    taken: dict[str, bool] = {}
    for item in wanted.split(","):
        name, _, parameters = item.partition(";")
        taken.setdefault(name.strip(" \"'").lower(), not _NEVER.match(parameters.strip()))
    named = [taken[name] for name in _UTF_8 if name in taken]
    return any(named) if named else taken.get("*", False)
