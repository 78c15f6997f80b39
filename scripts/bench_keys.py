"""Time QIDO-RS for every key, over HTTP, one request at a time, against a synthesized archive.

Prints a JSON row for each key: how long requests took (ms) and how many matches they gave. The
values asked for are those of `wado synthesize`, drawn at random, so each request is another one.
"""

import argparse
import datetime as dt
import http.client
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from wado.archive.synthesize import study_state, uids
from wado.records import DicomStateMeta

_SECONDS = 0.6
_MOST = 200
_LEAST = 3
_LIMIT = 50
Draw = Callable[[DicomStateMeta, random.Random], str]


def _part(text: str, length: int, pick: random.Random) -> str:
    start = pick.randrange(max(1, len(text) - length))
    return quote(text[start : start + length])


def _month(pick: random.Random) -> str:
    first = dt.date(2015, 1, 1) + dt.timedelta(days=pick.randrange(3600))
    return f"{first:%Y%m%d}-{first + dt.timedelta(days=30):%Y%m%d}"


def _names(s: DicomStateMeta) -> list[str]:
    return [quote(part) for part in (s.patient_name or "").split("^")]


STUDIES: dict[str, Draw] = {
    "StudyDate": lambda s, _: f"StudyDate={s.study_date}",
    "StudyDate, a month": lambda _, r: f"StudyDate={_month(r)}",
    "StudyDate and StudyTime ranges": lambda s, _: (
        f"StudyDate={s.study_date}-20241231&StudyTime=0800-1200"
    ),
    "StudyTime, an hour": lambda s, _: (
        f"StudyTime={(s.study_time or '')[:2]}00-{(s.study_time or '')[:2]}59"
    ),
    "StudyTime": lambda s, _: f"StudyTime={s.study_time}",
    "AccessionNumber": lambda s, _: f"AccessionNumber={s.accession_number}",
    "AccessionNumber=*12345*": lambda s, r: (
        f"AccessionNumber=*{_part(s.accession_number or '', 5, r)}*"
    ),
    "ModalitiesInStudy": lambda s, _: f"ModalitiesInStudy={s.modality}",
    "ModalitiesInStudy, two": lambda _, __: "ModalitiesInStudy=CT,MR",
    "ModalitiesInStudy, absent": lambda _, __: "ModalitiesInStudy=XA",
    "ModalitiesInStudy and a month": lambda _, r: f"ModalitiesInStudy=CT&StudyDate={_month(r)}",
    "ReferringPhysicianName": lambda _, __: "ReferringPhysicianName=Referrer%5EDr",
    "ReferringPhysicianName=*err*": lambda _, __: "ReferringPhysicianName=*err*",
    "PatientName": lambda s, _: "PatientName=" + "%5E".join(_names(s)),
    "PatientName=smi*": lambda s, _: f"PatientName={_names(s)[0][:3]}*",
    "PatientName=*mit*": lambda s, r: f"PatientName=*{_part(_names(s)[0], 3, r)}*",
    "PatientName=*xqz*, absent": lambda _, __: "PatientName=*xqz*",
    "PatientName, fuzzy": lambda s, _: (
        f"PatientName={'%20'.join(reversed(_names(s)))}&fuzzymatching=true"
    ),
    "PatientID": lambda s, _: f"PatientID={s.patient_id}",
    "PatientID=*12345*": lambda s, r: f"PatientID=*{_part(s.patient_id or '', 5, r)}*",
    "PatientBirthDate": lambda s, _: f"PatientBirthDate={s.patient_birth_date}",
    "PatientSex": lambda s, _: f"PatientSex={s.patient_sex}",
    "StudyInstanceUID": lambda s, _: f"StudyInstanceUID={s.study_instance_uid}",
    "StudyInstanceUID, ten": lambda _, r: (
        "StudyInstanceUID=" + ",".join(uids(r.randrange(10_000))[0] for _ in range(10))
    ),
    "StudyID": lambda s, _: f"StudyID={s.study_id}",
    "StudyDescription": lambda s, _: f"StudyDescription={quote(s.study_description or '')}",
    "StudyDescription=*ABDOMEN 7*": lambda s, _: (
        f"StudyDescription=*{quote((s.study_description or '')[9:])}*"
    ),
    "StudyDescription, absent": lambda _, __: "StudyDescription=*HEAD*",
    "AccessionNumber, empty": lambda _, __: "AccessionNumber=&emptyvaluematching=true",
}
SERIES: dict[str, Draw] = {
    "Modality": lambda s, _: f"Modality={s.modality}",
    "Modality, absent": lambda _, __: "Modality=XA",
    "SeriesInstanceUID": lambda s, _: f"SeriesInstanceUID={s.series_instance_uid}",
    "SeriesNumber": lambda _, __: "SeriesNumber=1",
    "SeriesNumber, absent": lambda _, __: "SeriesNumber=77",
    "SeriesDescription, absent": lambda _, __: "SeriesDescription=*Sagittal*",
    "PerformedProcedureStepStartDate": lambda s, _: (
        f"PerformedProcedureStepStartDate={s.study_date}"
    ),
    "PerformedProcedureStepStartTime, absent": lambda _, __: "PerformedProcedureStepStartTime=10",
    "RequestAttributesSequence.ScheduledProcedureStepID": lambda s, _: (
        f"RequestAttributesSequence.ScheduledProcedureStepID={s.scheduled_procedure_step_id}"
    ),
    "RequestAttributesSequence.RequestedProcedureID": lambda s, _: (
        f"RequestAttributesSequence.RequestedProcedureID={s.requested_procedure_id}"
    ),
    "PatientID": lambda s, _: f"PatientID={s.patient_id}",
    "StudyDate, a month": lambda _, r: f"StudyDate={_month(r)}",
}


def paths(studies: int) -> Iterator[tuple[str, Callable[[DicomStateMeta, random.Random], str]]]:
    """List the kinds of requests: their name, and what makes one."""
    for level, keys in (("studies", STUDIES), ("series", SERIES)):
        for name, draw in keys.items():
            yield f"{level}: {name}", _path(level, draw)
        for share in (0, 10, 50, 99):
            offset = studies * share // 100
            yield f"{level}: all, from {share} % on", _path(level, _offset(offset))


def _path(level: str, draw: Draw) -> Draw:
    return lambda s, r: f"/{level}?limit={_LIMIT}&{draw(s, r)}"


def _offset(offset: int) -> Draw:
    return lambda _, r: f"offset={offset + r.randrange(100)}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Compare two sizes of archive: for the queries of the harness, and for every key."""
    made = [
        r for r in rows
        if r["bench"] == "query-key"
        or (r["bench"] == "query" and r["label"] == "wado-synthesized" and r["conc"] == 1)
    ]  # fmt: skip
    sizes = sorted({r["studies"] for r in made})
    if not sizes:
        return []
    small, large = sizes[0], sizes[-1]
    intro = (
        f"QIDO-RS by key, one client, {small} and {large} studies made by `wado synthesize` (no "
        f"files; {_LIMIT} results asked for, values drawn at random). To reach at 1,000,000: "
        "p50 ≤ 3 ms, p95 ≤ 20 ms, and p50 ≤ 1.5 times that of 10,000."
    )
    lines = [
        intro,
        "",
        f"| query | p50 ms at {small} | p50 ms at {large} | p95 ms at {large} | ratio |",
        "|---|---|---|---|---|",
    ]
    for bench, kind in dict.fromkeys((r["bench"], r["kind"]) for r in made):
        same = [r for r in made if (r["bench"], r["kind"]) == (bench, kind)]
        few, many, p95 = (
            statistics.median(r[value] for r in same if r["studies"] == size)
            for value, size in (("p50_ms", small), ("p50_ms", large), ("p95_ms", large))
        )
        lines.append(f"| {kind} | {few:.1f} | {many:.1f} | {p95:.1f} | {many / few:.1f} |")
    return [*lines, ""]


def main() -> None:
    """Measure each kind and print a row."""
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--base-url", required=True)
    ap.add_argument("--studies", type=int, required=True)
    ap.add_argument("--label", default="wado")
    args = ap.parse_args()
    url, pick = urlsplit(args.base_url), random.Random(3)  # noqa: S311 - not for secrets
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    for name, make in paths(args.studies):
        taken: list[float] = []
        found, end = 0, time.monotonic() + _SECONDS
        while len(taken) < _LEAST or (time.monotonic() < end and len(taken) < _MOST):
            path = make(study_state("t", pick.randrange(args.studies)), pick)
            began = time.perf_counter()
            connection.request("GET", url.path + path)
            answer = connection.getresponse()
            body = answer.read()
            taken.append((time.perf_counter() - began) * 1000)
            if answer.status not in (200, 204):
                raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
            found += len(json.loads(body)) if body else 0
        p95 = sorted(taken)[int(len(taken) * 0.95)]
        row = {"bench": "query-key", "label": args.label, "studies": args.studies, "kind": name,
               "p50_ms": round(statistics.median(taken), 2), "p95_ms": round(p95, 2),
               "requests": len(taken), "found": round(found / len(taken), 1)}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
