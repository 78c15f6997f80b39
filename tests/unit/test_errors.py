"""The error tree: the drawing, the classes and their numbers agree."""

import re

import pytest

from wado import errors
from wado.errors import DuplicateInstance, NotFound, Refused, WadoError

_LINE = re.compile(
    r"(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+) *(?P<http>\d{3}\b)? *(?P<dimse>[0-9A-F]{4})?"
)


def _drawn() -> dict[str, tuple[str, int, int]]:
    """Name -> (parent, HTTP, DIMSE) of the drawing; numbers left out are the parent's."""
    assert errors.__doc__
    result: dict[str, tuple[str, int, int]] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines()[2:]:
        found = _LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"]) // 4
        path[depth:] = [found["name"]]
        parent = path[depth - 1] if depth else ""
        inherited = result.get(parent, ("", 0, 0))
        result[found["name"]] = (
            parent,
            int(found["http"] or inherited[1]),
            int(found["dimse"], 16) if found["dimse"] else inherited[2],
        )
    return result


def _defined() -> dict[str, tuple[str, int, int]]:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, WadoError)]
    return {
        c.__name__: (c.__bases__[0].__name__ if c is not WadoError else "", c.http, c.dimse)
        for c in classes
    }


def test_the_drawing_is_the_classes():
    assert _drawn() == _defined()


def test_numbers_are_inherited_and_overridden():
    assert (Refused.http, Refused.dimse) == (409, 0x0110)
    assert (DuplicateInstance.http, DuplicateInstance.dimse) == (409, 0x0111)


@pytest.mark.parametrize("error", [WadoError, *WadoError.__subclasses__()])
def test_every_error_is_a_failure_in_both_protocols(error: type[WadoError]):
    assert 400 <= error.http <= 599
    # PS3.7 Annex C: 0000 is success, Bxxx and a few more are warnings.
    assert error.dimse >> 12 in {0x0, 0xA, 0xC}
    assert error.dimse != 0


def test_the_text_is_the_sentence_for_the_user():
    assert str(NotFound("no such study")) == "no such study"
