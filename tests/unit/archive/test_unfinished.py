"""The note of work in hand: who finds it knows which attempts ended with who wrote it."""

from collections.abc import Callable

import pytest

from wado.archive.paths import unfinished_path
from wado.archive.unfinished import Unfinished
from wado.ports import Archive

LABEL = "transcode_queue-0-1-9"
ALL = [str(n) for n in range(9)]


@pytest.fixture
def note(archive: Archive) -> Callable[[], Unfinished]:
    """Find the note, as who starts next does."""
    return lambda: Unfinished(archive.store, LABEL)


def test_what_was_begun_and_not_ended_was_in_hand(note: Callable[[], Unfinished]) -> None:
    first = note()
    assert not first.was_cut_short
    for name in ("1", "2", "3", "4"):
        first.begin(name, 7, alone=False)
        if name == "2":
            first.leave(name)
    found = note()
    assert found.was_cut_short
    assert found.count_death(["2", "3", "4", "5"]) == {"3": 7, "4": 7}
    assert (found.deaths, found.attempts("4"), found.attempts("5")) == (1, 7, 0)
    assert not found.killed("4"), "another may have been the reason"


def test_attempts_that_ended_before_are_not_counted_again(note: Callable[[], Unfinished]) -> None:
    first = note()
    first.begin("1", 1, alone=False)
    first.leave("1", cut_short=1)
    first.begin("2", 1, alone=False)
    found = note()
    assert found.count_death(ALL) == {"2": 1}
    assert found.attempts("1") == 1


def test_what_kills_alone_is_counted(note: Callable[[], Unfinished]) -> None:
    for number in (1, 2):
        first = note()
        first.begin("4", number, alone=True)
        found = note()
        assert found.count_death(ALL) == {"4": number}
        assert (found.deaths, found.killed("4"), found.attempts("4")) == (number, number, number)
        found.begin("5", 1, alone=True)
        found.leave("5")
        found.give_up()


def test_who_gives_up_did_not_die(archive: Archive, note: Callable[[], Unfinished]) -> None:
    first = note()
    first.begin("1", 1, alone=True)
    first.give_up()
    assert archive.store.version(unfinished_path(LABEL)) is None
    note().begin("1", 1, alone=True)
    found = note()
    found.count_death(ALL)
    found.begin("1", 2, alone=True)
    found.give_up()
    found = note()
    assert (found.was_cut_short, found.deaths, found.killed("1")) == (False, 1, 1)


def test_a_note_that_is_none_is_passed_over(
    archive: Archive, note: Callable[[], Unfinished]
) -> None:
    for text in (b"no JSON", b'{"batch": 2, "17": 1}'):
        archive.store.put_document(unfinished_path(LABEL), [text])
        assert not note().was_cut_short
