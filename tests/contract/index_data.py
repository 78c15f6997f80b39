"""Series and matching keys for the tests of searches."""

import random
from typing import Any

from contract.indexes import state
from wado.ports import Match
from wado.records import DicomStateMeta

NAMES = ["Müller^Jörg", "Muller^Anna", "Doe^Jane", "Smith^John", "Smithers^Ed",
         "Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田^花子", "", None]  # fmt: skip
DATES = ["20240101", "20240102", "20240103", "20240301", None]
TIMES = ["0815", "101530", "101530.25", "235959", "", None]
MODALITIES = ["CT", "MR", "SR", None]


def archive(count: int = 300) -> list[DicomStateMeta]:
    """Make series, one to three in a study, with few values each, so that many rows fit."""
    pick = random.Random(7)
    states = []
    for n in range(count):
        of_study = {
            "patient_id": f"P{n % 40:03}",
            "patient_name": pick.choice(NAMES),
            "study_date": pick.choice(DATES),
            "study_time": pick.choice(TIMES),
            "study_id": str(n),
            "accession_number": pick.choice([f"ACC{n:05}", "", None]),
            "study_description": pick.choice(["Chest PA", "Abdomen 50%", "Head_CT", None]),
            "patient_sex": pick.choice(["F", "M", None]),
            "referring_physician_name": pick.choice(["House^G", "Who^Dr", None]),
        }
        states += [
            state(
                f"1.2.{n}",
                str(s),
                modality=pick.choice(MODALITIES),
                series_number=pick.choice([1, 2, 30, None]),
                series_description=pick.choice(["Axial B30f", "Topogram", None]),
                performed_procedure_step_start_date=pick.choice(DATES),
                **of_study,
            )
            for s in range(1 + n % 3)
        ]
    return states


def one(keyword: str, kind: Any, *values: str) -> Match:
    return Match(keyword, kind, values)


KEYS: list[tuple[Match, ...]] = [
    (),
    (one("patient_id", "single", "P007"),),
    (one("patient_id", "wildcard", "P00*"),),
    (one("patient_id", "wildcard", "*007*"),),
    (one("patient_id", "wildcard", "*3"),),
    (one("patient_id", "any_of", "P001", "P030"),),
    (one("accession_number", "wildcard", "*0012*"),),
    (one("accession_number", "empty"),),
    (one("study_description", "wildcard", "*50%*"),),
    (one("study_description", "wildcard", "?hest*"),),
    (one("study_description", "wildcard", "Head_*"),),
    (one("study_description", "single", "Chest PA"),),
    (one("patient_name", "empty"),),
    (one("patient_name", "wildcard", "*MÜLL*"),),
    (one("patient_name", "wildcard", "smith*"),),
    (one("patient_name", "wildcard", "*山田^太*"),),
    (one("patient_name", "wildcard", "山田*"),),
    (one("referring_physician_name", "single", "house^g"),),
    (one("study_date", "range", "20240102", "20240301"),),
    (one("study_date", "date_time_range", "20240101", "0900", "20240102", "1015"),),
    (one("study_date", "empty"),),
    (one("study_time", "single", "10"),),
    (one("patient_sex", "single", "F"), one("study_time", "range", "08", "11")),
    (one("modalities_in_study", "single", "CT"),),
    (one("modalities_in_study", "single", "CT"), one("study_date", "range", "20240102", "")),
    (one("modalities_in_study", "single", "CT"), one("modalities_in_study", "single", "MR")),
    (one("modalities_in_study", "single", "CT"), one("patient_name", "wildcard", "*john*")),
    (one("modalities_in_study", "any_of", "SR", "MR"), one("patient_id", "wildcard", "P01*")),
    (one("modality", "single", "SR"),),
    (one("modality", "single", "CT"), one("study_date", "single", "20240103")),
    (one("modality", "any_of", "SR", "CT"), one("patient_sex", "single", "M")),
    (one("series_number", "single", "30"), one("modality", "single", "MR")),
    (one("series_description", "wildcard", "*B30*"),),
    (one("performed_procedure_step_start_date", "range", "20240102", ""),),
    (one("performed_procedure_step_start_date", "single", "20240301"),
     one("patient_name", "wildcard", "muller*")),
    (Match("patient_name", "any", (), (one("patient_name", "wildcard", "doe*"),
                                       one("patient_name", "wildcard", "*山田*"))),),
    (Match("study_date", "all", (), (one("study_date", "range", "20240102", ""),
                                     one("study_date", "range", "", "20240103"))),),
]  # fmt: skip


def said(matches: tuple[Match, ...]) -> str:
    """Name a test by its keys."""
    return "+".join(f"{m.keyword}-{m.kind}-{'-'.join(m.values)}" for m in matches) or "all"
