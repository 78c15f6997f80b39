"""Person names as people look for them (PS3.5 §6.2): without case, diacritics, order of parts."""

import re
import unicodedata
from functools import lru_cache


def fold(name: str | None) -> str | None:
    """Write a person name so that case, diacritics and empty components do not matter.

    Component groups stay apart by ``=`` (PS3.5 §6.2.1.1). Only marks of European scripts are
    cut: in others they make another letter.
    """
    if not name:
        return name
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    bare = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f")
    groups = unicodedata.normalize("NFC", bare).split("=")
    return "=".join(group.rstrip("^ ").strip() for group in groups).rstrip("=")


def words(text: str) -> list[str]:
    """Split a name, or what somebody typed of one, into folded words; wildcards alone are none."""
    return [word for word in _WORD_ENDS.split(fold(text) or "") if word.strip("*?")]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern fits one component group of a name, or several in a row, or all.

    Case and diacritics don't matter; ``*`` and ``?`` are wildcards (PS3.4 §C.2.2.2.4).
    """
    groups = (fold(name) or "").split("=")
    folded = fold(pattern) or ""
    count = len(groups)
    return any(
        wildcard_fits(folded, "=".join(groups[start:end]))
        for start in range(count)
        for end in range(start + 1, count + 1)
    )


def sounds_like(name: str, text: str) -> bool:
    """Whether each word of a text is the beginning of a word of the name, in any order.

    This is fuzzy matching (PS3.4 §C.2.2.2.1.1). The words may be of any component of any group; a
    wildcard may go beyond the end of a word.
    """
    spaced = f"^{fold(name)}"
    return all(_follows(_WORD_END, word, spaced) for word in words(text))


def wildcard_fits(pattern: str, text: str) -> bool:
    """Whether a pattern of ``*`` and ``?`` fits a whole text; in time that no pattern can blow up.

    What stands between two ``*`` has a fixed length, so the first place where it fits will do.
    """
    first, *others = pattern.split("*")
    if not others:
        return len(text) == len(pattern) and _piece("", pattern).match(text) is not None
    *between, last = others
    begins = _piece("", first).match(text)
    if begins is None:
        return False
    at = _end_of(between, text, begins.end())
    last_at = len(text) - len(last)
    return 0 <= at <= last_at and _piece("", last).match(text, last_at) is not None


def _follows(end: str, pattern: str, text: str) -> bool:
    """Whether a pattern fits something right behind what ends a word."""
    first, *others = pattern.split("*")
    begins = _piece(end, first).search(text)
    return begins is not None and _end_of(others, text, begins.end()) >= 0


def _end_of(pieces: list[str], text: str, at: int) -> int:
    """Where the last of some pieces ends, each sought behind the one before; -1 if one isn't."""
    for piece in pieces:
        found = _piece("", piece).search(text, at)
        if found is None:
            return -1
        at = found.end()
    return at


@lru_cache(maxsize=1024)
def _piece(before: str, piece: str) -> re.Pattern[str]:
    return re.compile(before + re.escape(piece).replace(r"\?", "."), re.DOTALL)


_WORD_END = r"[\s^=,]"
_WORD_ENDS = re.compile(f"{_WORD_END}+")
