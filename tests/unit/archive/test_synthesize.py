"""Made-up studies are those of set Q of the benchmark data."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from wado.archive.synthesize import manifest, study_state, synthesize, uids
from wado.bootstrap import open_archive
from wado.errors import Unavailable
from wado.ports import Level, Match, Query
from wado.settings import Settings, load_settings
from wado.supervisor import RunLock


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, storage={"root": tmp_path / "root"})


def put(settings: Settings, numbers: Sequence[int]) -> list[int]:
    done: list[int] = []
    with open_archive(settings) as archive:
        synthesize(archive, "default", numbers, done.append)
    return done


def test_uids_are_those_of_the_data_set() -> None:
    # Made by make_data.py of the benchmarks for its set Q.
    study, series, instance = uids(7)
    assert study == "2.25.1264088517212384706505508338538323211"
    assert series == "2.25.1242467477616885215829318733536288497"
    assert instance == "2.25.423281665980340526020869598225485483"


def test_attributes_are_those_of_the_data_set() -> None:
    made = study_state("t", 12_345)
    assert made.patient_name == "Lee^Mary"
    assert (made.patient_id, made.accession_number, made.study_id) == (
        "PID0012345",
        "ACC00012345",
        "12345",
    )
    assert (made.study_date, made.study_time) == ("20201006", "094500")
    assert made.study_description == "MR CHEST ABDOMEN 45"


def test_fills_the_index_again_and_again(settings: Settings) -> None:
    assert put(settings, range(50)) == [50]
    put(settings, range(50))
    put(settings, range(40, 60))
    with open_archive(settings) as archive:
        assert len(archive.index.search(Query("default", Level.STUDY))) == 60
        assert not archive.index.awaiting_description(9)
        name = Match("accession_number", "wildcard", ("*0005*",))
        found = archive.index.search(Query("default", Level.STUDY, (name,)))
        assert {row["study_id"] for row in found} == {str(n) for n in (5, *range(50, 60))}


def test_lists_what_it_made() -> None:
    listed = json.loads("".join(manifest(range(3, 6))))
    assert listed["set"] == "Q"
    assert listed["files"] == 3
    assert list(listed["studies"]) == [uids(n)[0] for n in range(3, 6)]
    assert listed["studies"][uids(3)[0]] == {uids(3)[1]: [uids(3)[2]]}


def test_refuses_while_an_archive_runs(settings: Settings) -> None:
    from rich.console import Console  # noqa: PLC0415  # beside what it is for

    from wado.cli_tools import synthesize_with_progress  # noqa: PLC0415  # slow

    with (
        RunLock(settings.storage.root / "run", "wado up"),
        pytest.raises(Unavailable, match="wado up"),
    ):
        synthesize_with_progress(
            settings, range(3), manifest=None, out=Console(), err=Console(stderr=True)
        )
