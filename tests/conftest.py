"""Fixtures shared by all tests."""

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import backing_services
import real
from backing.program import free_port
from service import PATIENT_ENV, RunningArchive
from wado.ports import Archive
from wado.settings import Settings, load_settings

TESTS = Path(__file__).resolve().parent
# How long an example takes says how busy the machine is. All else stays as Hypothesis has it here.
hypothesis_settings.register_profile(
    "patient",
    hypothesis_settings(),
    deadline=None,
    suppress_health_check=[*hypothesis_settings().suppress_health_check, HealthCheck.too_slow],
)
hypothesis_settings.load_profile("patient")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it to what it starts in its background, and so to the commands of tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _developers_settings_stay_out() -> Iterator[None]:
    """Take the developer's own ``WADO_…`` settings out of the environment of the tests."""
    taken = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith("WADO_") and not name.startswith("WADO_TEST_")
    }
    yield
    os.environ.update(taken)


@pytest.fixture(autouse=True, scope="session")
def _loggers_are_made_anew() -> Iterator[None]:
    """One that is kept, as `configure_logging` wants, would not be heard by `capture_logs`."""
    with pytest.MonkeyPatch.context() as patch:
        configure = structlog.configure
        patch.setattr(
            structlog,
            "configure",
            lambda **given: configure(**{**given, "cache_logger_on_first_use": False}),
        )
        yield


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """A command that ran in this process set it up, for a standard error that is gone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of real DICOM files, read-only."""
    return real.require("corpus")


@pytest.fixture(scope="session")
def manifest(corpus: Path) -> list[dict[str, str]]:
    """Rows of the corpus's MANIFEST.tsv; ``path`` is relative to the corpus."""
    with (corpus / "MANIFEST.tsv").open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the whole run, the same in every worker of xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the services that this run started; workers leave that to their controller."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and not hasattr(session.config, "workerinput"):
        backing_services.stop_all(factory.getbasetemp())


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    return free_port()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an embedded archive below `tmp_path`, on free loopback ports."""
    return load_settings(
        storage={"root": tmp_path / "data"},
        storescp={"port": free_port(), "workers": 1},
        server={"port": free_port()},
    )


@pytest.fixture
def archive(settings: Settings) -> Iterator[Archive]:
    """An embedded archive, opened in this process and closed at the end."""
    from wado.bootstrap import open_archive  # noqa: PLC0415  # slow: only for those who ask

    with open_archive(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArchive]:
    """One `wado up` for the whole run (of this worker): leave no trace that harms others."""
    with RunningArchive(tmp_path_factory.mktemp("running") / "data", env=PATIENT_ENV) as archive:
        yield archive


# ------------------------------------------------------------------ the run as a whole


def pytest_report_header() -> list[str]:
    """Say which real programs and files this run stands on."""
    required = ", ".join(sorted(real.required())) or "nothing"
    return [f"real: {real.describe()}", f"required (WADO_TEST_REQUIRE): {required}"]


@pytest.hookimpl(trylast=True)  # behind the shuffling
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest, so that no worker waits for one at the end."""
    items.sort(key=lambda item: _LONGEST_FIRST.get(group_of(item.nodeid), len(_LONGEST_FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests in one process that would disturb each other or would start an archive each.

    Browser tests and faults of one machine run one after the other in one worker, faults of
    services in one, too. Tests of conformance share what their module, or the corpus, needs; all
    others what their module needs.
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  # only where it is used

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


def group_of(nodeid: str) -> str:
    """Group of tests that stay together, by the path of a test."""
    path = nodeid.partition("::")[0].removeprefix("tests/")
    folder = path.partition("/")[0]
    if path in _OF_SERVICES:
        return "services"
    if folder in {"browser", "fault"}:
        return "heavy"
    return "corpus" if path in _OF_THE_CORPUS else path


_LONGEST_FIRST = {"heavy": 0, "services": 1, "corpus": 2}
_OF_SERVICES = frozenset(
    f"fault/test_{name}.py"
    for name in ("chaos", "doris", "kafka_brokers", "postgresql", "redis", "s3")
)
"""Modules that start services of their own, and break them."""

_OF_THE_CORPUS = frozenset(
    f"conformance/test_{name}.py" for name in ("transfer_syntaxes", "metadata")
)
"""Modules whose tests share one archive that holds the whole corpus."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the end of the archive's log beside a test that failed."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, RunningArchive):
                report.sections.append(("wado up", value.log[-8000:]))
    return report
