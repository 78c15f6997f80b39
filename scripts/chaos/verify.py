"""Count at the end: what was acknowledged is stored, indexed, described and loaded, each once."""

import hashlib
import http.client
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos.images import data_set_of
from chaos.ledger import Entry, Ledger
from wado.bootstrap import open_archive
from wado.settings import load_settings

_PAGE = 500
_SHOWN = 10
_AT_A_TIME = 4
_TIMEOUT_S = 60.0
_CHECK_TIMEOUT_S = 1800.0
TENANT = "default"


@dataclass
class Outcome:
    """What was counted, and what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def compare(self, where: str, found: "Counter[str]", expected: set[str]) -> None:
        """Each one expected is there exactly once, and nothing else is."""
        self.counts[where] = sum(found.values())
        missing = sorted(expected - found.keys())
        strange = sorted(found.keys() - expected)
        twice = sorted(name for name, count in found.items() if count > 1)
        for what, names in (("missing", missing), ("nobody's", strange), ("more than once", twice)):
            if names:
                self.faults.append(f"{where}: {len(names)} {what}: {', '.join(names[:_SHOWN])}")

    def expect(self, what: str, *, holds: bool, detail: object = "") -> None:
        """Note a fault unless something holds."""
        if not holds:
            self.faults.append(f"{what} {detail}".strip())


@dataclass
class Verifier:
    """Compares the ledger with a cluster at rest.

    Parameters
    ----------
    cluster
        What ``cluster.json`` says.
    ledger
        What was acknowledged.
    """

    cluster: dict[str, Any]
    ledger: Ledger
    outcome: Outcome = field(default_factory=Outcome)

    def verify(self) -> Outcome:
        """Count everything; needs all members to be well and the backlog to be drained."""
        entries = self.ledger.entries
        expected = set(entries)
        self.outcome.counts["sent"] = len(expected)
        self.outcome.counts["acknowledged"] = len(expected) - len(self.ledger.unacknowledged)
        self.outcome.expect("not acknowledged:", holds=not self.ledger.unacknowledged)
        self._files(expected)
        self._searches(expected)
        self._warehouse(expected)
        self._retrieval(list(entries.values()))
        self._commands()
        return self.outcome

    def _files(self, expected: set[str]) -> None:
        root = Path(self.cluster["storage_root"])
        found = Counter(path.stem for path in (root / TENANT).glob("*/*/*.dcm"))
        self.outcome.compare("stored", found, expected)
        left = list(root.rglob("*.part"))
        self.outcome.counts["temporary files of killed processes"] = len(left)
        kept = [str(p) for p in left if _is_of_the_living(p)]
        self.outcome.expect("temporary files are left:", holds=not kept, detail=kept[:_SHOWN])
        held = [str(path) for path in (root / "quarantine").rglob("*") if path.is_file()]
        self.outcome.expect("in quarantine:", holds=not held, detail=held[:_SHOWN])

    def _searches(self, expected: set[str]) -> None:
        """QIDO-RS counts, instances by QIDO-RS, and the metadata of every series."""
        described: Counter[str] = Counter()
        searched: Counter[str] = Counter()
        indexed = 0
        for study in self._pages("/studies?includefield=00201206,00201208"):
            path = f"/studies/{_first(study, '0020000D')}"
            series = list(self._pages(f"{path}/series?includefield=00201209"))
            instances = sum(int(_first(row, "00201209")) for row in series)
            indexed += instances
            told = (_first(study, "00201206"), _first(study, "00201208"))
            self.outcome.expect(
                f"{path} counts", holds=told == (len(series), instances), detail=told
            )
            for row in series:
                at = f"{path}/series/{_first(row, '0020000E')}"
                metadata = [_first(m, "00080018") for m in self._json(f"{at}/metadata")]
                described.update(metadata)
                searched.update(_first(i, "00080018") for i in self._pages(f"{at}/instances?"))
                count = int(_first(row, "00201209"))
                self.outcome.expect(
                    f"{at}: {count} indexed,", holds=count == len(metadata), detail=len(metadata)
                )
        self.outcome.counts["indexed"] = indexed
        self.outcome.expect("indexed:", holds=indexed == len(expected), detail=indexed)
        self.outcome.compare("in metadata", described, expected)
        self.outcome.compare("found by QIDO-RS", searched, expected)

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        offset = 0
        joint = "&" if "?" in path else "?"
        while rows := self._json(f"{path}{joint}limit={_PAGE}&offset={offset}"):
            yield from rows
            offset += len(rows)

    def _json(self, path: str) -> list[dict[str, Any]]:
        status, body = get(f"{self.cluster['dicomweb']}{path}", "application/dicom+json")
        if status not in {200, 204}:
            raise RuntimeError(f"{path}: HTTP {status} {body[:300]!r}")
        rows: list[dict[str, Any]] = json.loads(body or b"[]")
        return rows

    def _warehouse(self, expected: set[str]) -> None:
        """Rows of the warehouse; a label that was loaded twice would show in the receptions."""
        with open_archive(load_settings(Path(self.cluster["config"]))) as archive:
            ask = archive.warehouse.query
            rows = ask("select sop_instance_uid, count(*) as n from dicom_image_meta group by 1")
            images = Counter({r["sop_instance_uid"]: int(r["n"]) for r in rows})
            self.outcome.compare("in warehouse (dicom_image_meta)", images, expected)
            received = ask(
                "select sop_instance_uid, trace_id, count(*) as n from dicom_object_meta"
                " group by 1, 2"
            )
            missing = expected - {r["sop_instance_uid"] for r in received}
            self.outcome.counts["receptions (dicom_object_meta)"] = sum(
                int(r["n"]) for r in received
            )
            self.outcome.expect(
                "not in dicom_object_meta:", holds=not missing, detail=sorted(missing)[:_SHOWN]
            )
            twice = [r["trace_id"] for r in received if int(r["n"]) > 1]
            self.outcome.expect(
                "one reception is in dicom_object_meta twice:",
                holds=not twice,
                detail=f"{len(twice)} times: {twice[:_SHOWN]}",
            )
            series = {e.image.series_instance_uid for e in self.ledger.entries.values()}
            states = ask(
                "select series_instance_uid, count(*) as n from dicom_state_meta group by 1"
            )
            found = Counter({r["series_instance_uid"]: int(r["n"]) for r in states})
            self.outcome.compare("series in warehouse (dicom_state_meta)", found, series)

    def _retrieval(self, entries: Sequence[Entry]) -> None:
        """Every instance by WADO-RS: its data set is what was sent, bit for bit."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            wrong = [reason for reason in pool.map(self._retrieved, entries) if reason]
        self.outcome.counts["retrieved bit for bit"] = len(entries) - len(wrong)
        self.outcome.expect("retrieval:", holds=not wrong, detail=wrong[:_SHOWN])

    def _retrieved(self, entry: Entry) -> str:
        image = entry.image
        path = (
            f"/studies/{image.study_instance_uid}/series/{image.series_instance_uid}"
            f"/instances/{image.sop_instance_uid}"
        )
        status, body = get(
            f"{self.cluster['dicomweb']}{path}", "application/dicom; transfer-syntax=*"
        )
        if status != 200:
            return f"{path}: HTTP {status}"
        digest = hashlib.sha256(data_set_of(body)).hexdigest()
        return "" if digest == entry.data_set_sha256 else f"{path}: other bytes"

    def _commands(self) -> None:
        """`wado check --deep` finds nothing; there are no dead letters."""
        check = wado(self.cluster, "check", "--deep")
        self.outcome.expect(
            "wado check --deep:", holds=check.returncode == 0, detail=check.stdout + check.stderr
        )
        letters = wado(self.cluster, "dlq", "list")
        self.outcome.expect(
            "dead letters:",
            holds=letters.stdout.strip().endswith("0 dead letters") and letters.returncode == 0,
            detail=letters.stdout[-2000:] + letters.stderr[-2000:],
        )


def wado(cluster: dict[str, Any], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `wado` with the settings of a cluster."""
    return subprocess.run(
        [sys.executable, "-m", "wado", "--config", str(cluster["config"]), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHECK_TIMEOUT_S,
    )


def get(url: str, accept: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes]:
    """GET; the status and the body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _first(item: dict[str, Any], tag: str) -> Any:
    return item.get(tag, {}).get("Value", [None])[0]


def _is_of_the_living(path: Path) -> bool:
    """Whether a temporary file is of a process that runs: nobody writes now, so it forgot it."""
    pid = path.name.removesuffix(".part").rpartition(".")[2].partition("-")[0]
    return Path(f"/proc/{pid}").exists()
