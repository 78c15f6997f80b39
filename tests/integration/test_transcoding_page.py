"""What docs/operations/transcoding.md tells to type: its commands, and its queries."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import copies
import real
import synthetic
from backing_doris import address_of, make_tables, open_doris, shared_doris
from contract.warehouses import FAILED, TRANSCODE
from copies import deflated
from service import RunningArchive
from wado.adapters.warehouse.duckdb import DuckdbWarehouse
from wado.bootstrap import open_archive
from wado.ports import Warehouse
from wado.settings import load_settings

PAGE = (real.PROJECT / "docs" / "operations" / "transcoding.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(params=["duckdb", "doris"])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, run_folder: Path
) -> Iterator[Warehouse]:
    if request.param == "doris":
        address = address_of(shared_doris(run_folder), f"t{uuid.uuid4().hex}")
        make_tables(address)
        with closing(open_doris(address)) as opened:
            yield opened
    else:
        with closing(DuckdbWarehouse(tmp_path / "warehouse.duckdb")) as opened:
            yield opened


def test_the_queries_of_the_page(warehouse: Warehouse) -> None:
    rows = [TRANSCODE, FAILED, replace(FAILED, attempt=1)]
    warehouse.load("dicom_transcode_log", [row.to_json() for row in rows], "a-0-0-2")
    failures, costs = (warehouse.query(sql) for sql in blocks("sql"))
    (failure,) = failures
    assert (failure["reason"], failure["images"], failure["attempts"]) == (FAILED.reason, 1, 2)
    assert failure["latest"] == FAILED.transcoded_at
    (cost,) = costs
    assert cost["images"] == 1
    assert cost["target_transfer_syntax_uid"] == TRANSCODE.target_transfer_syntax_uid
    assert TRANSCODE.number_of_frames
    expected = TRANSCODE.number_of_frames / (TRANSCODE.duration_ms / 1000)
    assert float(cost["frames_per_second"]) == pytest.approx(expected)


@pytest.mark.timeout(600)  # it is many commands
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    commands = "".join(text for text in blocks("sh") if text.startswith(("wado ", "curl ")))
    assert commands.count("wado ") > 10
    root = tmp_path / "data"
    settings = load_settings(
        storage={"root": root, "default_tenant": "clinic"}, transcode={"enabled": False}
    )
    image = deflated(synthetic.ct())
    with open_archive(settings) as archive:
        copies.store(archive, image, deflated(synthetic.ct(study="other")))
    (tmp_path / "wado.toml").write_text(
        f'[storage]\nroot = "{root}"\ndefault_tenant = "clinic"\n[transcode]\nenabled = false\n'
    )
    with RunningArchive(root, env={"WADO_STORAGE__DEFAULT_TENANT": "clinic"}) as running:
        done = subprocess.run(
            ["bash", "-eux", "-c", commands], cwd=tmp_path, timeout=500, check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "STUDY": str(image.StudyInstanceUID), "ROOT": running.http,
                 "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 copies would be made" in done.stdout
    assert "2 copies made, 0 failed" in done.stdout
    assert "1 copies removed" in done.stdout
    assert '"conversions"' in done.stdout
