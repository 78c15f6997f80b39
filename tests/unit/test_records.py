"""Records survive the way over the log, also between versions."""

from dataclasses import asdict, fields, replace

import orjson
import pytest

from wado.errors import InvalidMessage, InvalidUID
from wado.records import (
    CommitmentMeta,
    DicomDeleteMeta,
    DicomImageMeta,
    DicomImageRemoval,
    DicomStateMeta,
    DicomStoreMeta,
    Topic,
    WadoAccessLog,
)

STORE = DicomStoreMeta(
    tenant_id="default",
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.4",
    sop_instance_uid="1.2.3.4.5",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient_id="Ä-1",
    file_name="1.2.3.4.5.dcm",
    file_path="default/1.2.3/1.2.3.4/1.2.3.4.5.dcm",
    file_size=1234,
    digest="00" * 32,
    received_at="2026-11-22T18:00:00.000001Z",
    trace_id="f" * 32,
)
STATE = DicomStateMeta("default", "1.2.3", "1.2.3.4", patient_name="Müller^Jörg", series_number=7)
IMAGE = DicomImageMeta(
    tenant_id="default",
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.4",
    sop_instance_uid="1.2.3.4.5",
    sop_class_uid=STORE.sop_class_uid,
    transfer_syntax_uid=STORE.transfer_syntax_uid,
    file_path=STORE.file_path,
    file_size=STORE.file_size,
    digest=STORE.digest,
    received_at=STORE.received_at,
    trace_id=STORE.trace_id,
    rows=512,
)
ACCESS = WadoAccessLog(
    "default", STORE.received_at, "t", "GET", "/dicomweb/studies", "", 200, 2, 1.5
)


@pytest.mark.parametrize("record", [STORE, STATE, IMAGE, ACCESS], ids=lambda r: type(r).__name__)
def test_a_record_comes_back_as_it_was(record):
    body = record.to_json()
    assert b"\n" not in body
    assert type(record).from_json(body) == record
    assert orjson.loads(body) == asdict(record)


def test_fields_of_a_newer_version_are_passed_over_and_new_ones_have_defaults():
    value = orjson.loads(STATE.to_json())
    value["of_a_newer_version"] = 1
    del value["updated_at"]
    assert DicomStateMeta.from_json(orjson.dumps(value)) == STATE


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'"text"', b'{"tenant_id": "default"}']
)
def test_what_is_no_record_is_an_invalid_message(body: bytes):
    with pytest.raises(InvalidMessage, match="DicomStoreMeta"):
        DicomStoreMeta.from_json(body)


def test_a_reference_is_validated_again():
    assert STORE.ref.series.series_instance_uid == "1.2.3.4"
    value = orjson.loads(STORE.to_json()) | {"study_instance_uid": "../../etc"}
    with pytest.raises(InvalidUID):
        _ = DicomStoreMeta.from_json(orjson.dumps(value)).ref


def test_all_messages_of_a_study_have_one_key():
    assert STORE.key == STATE.key == IMAGE.key == "default/1.2.3"


DELETE = DicomDeleteMeta("default", "1.2.3", "2026-01-02T03:04:05.000006+00:00", "trace")


def test_announcement_and_deletion_are_told_apart():
    with pytest.raises(InvalidMessage):
        DicomStoreMeta.from_json(DELETE.to_json())
    with pytest.raises(InvalidMessage):
        DicomDeleteMeta.from_json(STORE.to_json())
    assert DELETE.key == STORE.key, "in one order"


def test_deletion_covers_what_is_below_it():
    instance = STORE.ref
    series = replace(DELETE, series_instance_uid=instance.series_instance_uid)
    one = replace(series, sop_instance_uid=instance.sop_instance_uid)
    assert (DELETE.ref, series.ref, one.ref) == (instance.study, instance.series, instance)
    for meta in (DELETE, series, one):
        assert meta.covers(instance)
        assert not meta.covers(replace(instance, tenant_id="other"))
    assert not one.covers(replace(instance, sop_instance_uid="1.9"))
    assert not series.covers(replace(instance, series_instance_uid="1.9"))
    assert not DELETE.covers(replace(instance, study_instance_uid="1.9"))


def test_topics_are_named_as_in_the_design():
    assert [topic.value for topic in Topic] == [
        "storage_queue",
        "log_queue",
        "dicom_state_queue",
        "dicom_image_queue",
        "transcode_queue",
        "transcode_log_queue",
        "commitment_queue",
        "webapi_access_queue",
    ]


@pytest.mark.parametrize(
    "record",
    [
        DicomStoreMeta,
        DicomDeleteMeta,
        DicomStateMeta,
        DicomImageMeta,
        DicomImageRemoval,
        CommitmentMeta,
        WadoAccessLog,
    ],
)
def test_every_record_names_its_tenant_first(record):
    assert fields(record)[0].name == "tenant_id"
