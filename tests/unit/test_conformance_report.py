"""The executable conformance report: complete, and a line fails with any of its tests."""

from pathlib import Path

import pytest

import conformance_report

pytest_plugins = ("pytester",)

_CHECKLIST = """
[[group]]
title = "One"
lines = [
  { id = "good", section = "8.1", need = "M", text = "Good things" },
  { id = "bad", section = "8.2", need = "M", text = "Bad things" },
  { id = "half", section = "8.3", need = "C", text = "Half of it" },
  { id = "skipped", section = "8.4", need = "O", text = "Skipped things" },
  { id = "broken", section = "8.5", need = "O", text = "Broken set-up" },
  { id = "forgotten", section = "8.6", need = "O", text = "Forgotten things" },
  { id = "refused", section = "8.7", need = "O", text = "Refused things", declined = "by design" },
]
"""
_TESTS = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError

@pytest.mark.ps318("good", "half", "refused")
def test_good(): pass

@pytest.mark.ps318("bad", "half")
@pytest.mark.parametrize("n", [1, 2])
def test_bad(n): assert n == 1

@pytest.mark.ps318("skipped")
def test_skipped(): pytest.skip("not here")

@pytest.mark.ps318("broken")
def test_broken(broken): pass
"""


def test_each_line_is_named_by_a_test_and_each_name_is_a_line():
    assert conformance_report.unfinished() == []


def test_lines_are_told_apart_and_say_what_they_are():
    lines = conformance_report.lines()
    assert len(lines) > 120
    assert len({line.id for line in lines}) == len(lines)
    for line in lines:
        assert line.text.strip()
        assert line.need in {"M", "C", "O"}
        assert line.declined == "" or line.need == "O", "what is mandatory can't be declined"


def test_lines_are_shown_by_tests_that_talk_http():
    for name, tests in conformance_report.marked_tests().items():
        for test in tests:
            folder = test.split("/")[0]
            assert folder in {"conformance", "integration", "fault", "browser"}, (name, test)


def _reported(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    here = Path(conformance_report.__file__)
    pytester.makepyfile(conformance_report=here.read_text(encoding="utf-8"), test_lines=_TESTS)
    pytester.mkdir("conformance").joinpath("checklist.toml").write_text(_CHECKLIST)
    pytester.makeini("[pytest]\nmarkers = ps318: lines")
    return pytester.runpytest_subprocess(
        "-p", "conformance_report", "-p", "no:randomly", *arguments, "-m", "ps318"
    )


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one", "two"])
def test_a_line_holds_if_all_its_tests_pass(pytester: pytest.Pytester, processes: list[str]):
    done = _reported(pytester, *processes)
    words = {line.split()[3]: line.split()[0] for line in done.outlines if line.endswith(" tests)")}
    assert words == {
        "Good": "pass", "Bad": "FAIL", "Half": "FAIL", "Skipped": "FAIL", "Broken": "FAIL",
        "Forgotten": "FAIL", "Refused": "declined",
    }  # fmt: skip
    assert "2 of 7 lines hold" in done.outlines
    assert done.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one", "two"])
def test_a_run_in_which_a_line_was_not_shown_fails(pytester: pytest.Pytester, processes: list[str]):
    done = _reported(
        pytester,
        *processes,
        "--deselect=test_lines.py::test_bad",
        "--deselect=test_lines.py::test_broken",
    )
    done.assert_outcomes(passed=1, skipped=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
