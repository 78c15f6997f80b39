"""A large archive made up: the index rows of one-instance studies, without their files.

The rows are those that set Q of the project's benchmark data leaves behind when it is stored, so
that searches can be measured at a million studies.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from wado.ports import Archive
from wado.records import DicomStateMeta

_BATCH = 20_000
_FIRST_DATE = dt.date(2015, 1, 1)
_DAYS = 3650
_SET = "Q"
_UPDATED_AT = "2025-01-01T00:00:00.000000+00:00"
_UID_BYTES = 15
_MODALITIES = ("CT", "MR", "US", "CR", "DX", "PT", "CT", "MR")
_FAMILY_NAMES = """
    Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez
    Lopez Gonzalez Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson
    White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young Allen King Wright Scott
    Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera Campbell Mitchell Carter
    Roberts Meyer Schulz Weber Wagner Becker Hoffmann Schaefer Koch Bauer Richter Klein Wolf
    Schroeder Neumann Schwarz Zimmermann Braun Krueger Hofmann Hartmann Lange Werner Rossi
    Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo Dubois
    Durand Leroy Moreau Simon Laurent Lefebvre Michel Fournier Girard Bonnet
"""
_GIVEN_NAMES = """
    James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara
    Richard Susan Joseph Jessica Thomas Sarah Charles Karen Daniel Lisa Matthew Nancy Anna
    Lukas Marie Paul Sophie Felix Emma Jonas Clara Marco Giulia Luca Chiara Pierre Camille
    Louis Manon Hugo Lea Arthur Ines Jules Alice Peter Eva
"""
# Large primes, so that neighbours differ and each value comes equally often.
_FAMILY_STEP, _GIVEN_STEP, _DATE_STEP = 7919, 104729, 7919
_FAMILIES, _GIVEN = _FAMILY_NAMES.split(), _GIVEN_NAMES.split()


def synthesize(
    archive: Archive,
    tenant_id: str,
    numbers: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Put the studies of these numbers into the index. The services must not run meanwhile."""
    states = (study_state(tenant_id, number) for number in numbers)
    done = 0
    with archive.index.loading() as put:
        while batch := list(islice(states, _BATCH)):
            put(batch)
            done += len(batch)
            if progress:
                progress(done)


def study_state(tenant_id: str, number: int) -> DicomStateMeta:
    """Make the row of study `number` (from 0): the same whenever it is made."""
    modality = _MODALITIES[number % len(_MODALITIES)]
    date = _FIRST_DATE + dt.timedelta(days=number * _DATE_STEP % _DAYS)
    date_text = f"{date:%Y%m%d}"
    family = _FAMILIES[number * _FAMILY_STEP % len(_FAMILIES)]
    given = _GIVEN[number * _GIVEN_STEP % len(_GIVEN)]
    study_instance_uid, series_instance_uid, _ = uids(number)
    return DicomStateMeta(
        tenant_id=tenant_id,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        patient_id=f"PID{number:07d}",
        patient_name=f"{family}^{given}",
        patient_birth_date=f"{1930 + number % 80}{1 + number % 12:02d}{1 + number % 28:02d}",
        patient_sex="FM"[number % 2],
        study_date=date_text,
        study_time=f"{number % 24:02d}{number % 60:02d}00",
        study_id=str(number),
        study_description=f"{modality} CHEST ABDOMEN {number % 50}",
        accession_number=f"ACC{number:08d}",
        referring_physician_name="Referrer^Dr",
        modality=modality,
        series_number=1,
        series_description="Axial 0 B30f",
        series_date=date_text,
        series_time="101000",
        body_part_examined="CHEST",
        protocol_name="ThoraxRoutine",
        station_name="CT01",
        institution_name="Bench General Hospital",
        manufacturer="SYNTHETIC",
        manufacturer_model_name="Model 1",
        performed_procedure_step_start_date=date_text,
        scheduled_procedure_step_id=f"SPS{number}",
        requested_procedure_id=f"RP{number}",
        number_of_series_related_instances=1,
        updated_at=_UPDATED_AT,
    )


def uids(number: int) -> tuple[str, str, str]:
    """Give the UIDs of study `number`, of its only series, and of its only instance."""
    return _uid(number), _uid(number, 0), _uid(number, 0, 0)


def _uid(*numbers: int) -> str:
    digest = hashlib.sha256("/".join((_SET, *map(str, numbers))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:_UID_BYTES], 'big')}"


def manifest(numbers: Sequence[int]) -> Iterator[str]:
    """Write, piece by piece, the JSON list of studies by which the benchmarks know a data set."""
    yield f'{{"set": "{_SET}", "files": {len(numbers)}, "bytes": 0, "frames": 1, "studies": {{'
    separator = ""
    for number in numbers:
        study, series, instance = uids(number)
        yield f'{separator}"{study}": {{"{series}": ["{instance}"]}}'
        separator = ", "
    yield "}}"
