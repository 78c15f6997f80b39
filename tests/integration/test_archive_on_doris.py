"""An archive whose warehouse is in Doris: what asks the warehouse finds what it finds in DuckDB.

The tests are those of the archive; here they are run again with another warehouse.
"""

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import synthetic
from backing import doris
from backing_doris import address_of, make_tables, open_doris, shared_doris
from service import PATIENT_ENV, RunningArchive, wait_until
from unit.archive.test_check import (
    test_archive_in_order,
    test_harm_is_found_and_mended,
    test_rebuild_that_was_interrupted_is_run_again,
)
from unit.archive.test_commitment import (
    test_instances_that_are_safe_and_those_that_are_not,
    test_what_was_stored_a_moment_ago_is_waited_for,
)
from unit.archive.test_delete import (
    test_all_that_came_comes_again_after_a_power_cut,
    test_instance_goes_and_the_others_stay,
    test_what_is_stored_after_a_deletion_stays,
)
from unit.archive.test_search import test_a_uid_is_found_among_many_series
from unit.services.test_consumer import (
    test_rows_are_loaded_and_removed_in_their_order_and_in_a_replay,
)
from wado.bootstrap import open_archive
from wado.ports import Archive
from wado.settings import Settings

__all__ = [
    "test_a_uid_is_found_among_many_series",
    "test_all_that_came_comes_again_after_a_power_cut",
    "test_archive_in_order",
    "test_harm_is_found_and_mended",
    "test_instance_goes_and_the_others_stay",
    "test_instances_that_are_safe_and_those_that_are_not",
    "test_rebuild_that_was_interrupted_is_run_again",
    "test_rows_are_loaded_and_removed_in_their_order_and_in_a_replay",
    "test_what_is_stored_after_a_deletion_stays",
    "test_what_was_stored_a_moment_ago_is_waited_for",
]


@pytest.fixture
def archive(settings: Settings, run_folder: Path) -> Iterator[Archive]:
    """An archive in this process, its warehouse in a database of its own."""
    address = address_of(shared_doris(run_folder), f"t{uuid.uuid4().hex}")
    make_tables(address)
    with open_archive(settings) as opened, closing(open_doris(address)) as warehouse:
        yield replace(opened, warehouse=warehouse)


def test_the_services_and_commands(tmp_path: Path, run_folder: Path) -> None:
    """`wado init`, then all services as processes: what is stored is where `wado check` looks."""
    ports = shared_doris(run_folder)
    env = {
        **PATIENT_ENV,
        "WADO_WAREHOUSE__URL": ports.url_of(f"t{uuid.uuid4().hex}"),
        "WADO_WAREHOUSE__HTTP_URL": ports.frontend,
        "WADO_WAREHOUSE__REPLICAS": "1",
        "WADO_CONSUMER__LOAD_INTERVAL_S": "0",
    }
    with RunningArchive(tmp_path / "data", env=env) as running:
        # Not prepared yet: images are taken and catalogued, the loaders wait for `wado init`.
        datasets = synthetic.ct_series(5)
        folder = tmp_path / "in"
        folder.mkdir()
        for ds in datasets:
            (folder / f"{ds.SOPInstanceUID}.dcm").write_bytes(synthetic.part10(ds))
        sent = running.wado("send", str(folder), "--to", running.destination)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: "run `wado init`" in running.log, timeout_s=120, reason="it is said")
        made = running.wado("init", "--root", str(running.root))
        assert made.returncode == 0, made.stdout + made.stderr
        assert "made table dicom_image_meta" in made.stdout

        def check() -> bool:
            return running.wado("check", "--root", str(running.root)).returncode == 0

        wait_until(check, timeout_s=150, reason="`wado check` finds nothing")
        assert doris.PASSWORD not in running.log
    address = address_of(ports, env["WADO_WAREHOUSE__URL"].rpartition("/")[2])
    with closing(open_doris(address)) as warehouse:
        assert warehouse.count("dicom_image_meta") == 5
        assert warehouse.count("dicom_object_meta") == 5
