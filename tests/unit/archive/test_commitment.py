"""Storage commitment: what is promised was read again, and what is not has its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

import synthetic
from crashes import Crash, Crashing
from steps import batches, catalogue_all, load_all, store
from wado.archive.commitment import (
    Wanted,
    find_transaction,
    forget_commitments,
    read_request,
    request_commitment,
    work_on,
)
from wado.archive.journal import Journals
from wado.archive.paths import instance_path
from wado.dicom.uids import InstanceRef
from wado.errors import DuplicateTransaction, Gone, InvalidRequest, NotFound, TooLarge, Unavailable
from wado.ports import Archive
from wado.records import CommitmentMeta, Topic

META = CommitmentMeta("clinic", "1.2.3", "trace")
DAY_S = 86400.0


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def reference(ds: Dataset, sop_class_uid: str = "") -> dict[str, Any]:
    return {
        "00081150": element("UI", sop_class_uid or str(ds.SOPClassUID)),
        "00081155": element("UI", str(ds.SOPInstanceUID)),
    }


def by_instances(*references: Mapping[str, Any]) -> dict[str, Any]:
    return {"00081199": element("SQ", *references)}


def committed(
    archive: Archive, payload: Mapping[str, Any], uid: str = "1.2.3"
) -> Mapping[str, Any]:
    meta = replace(META, transaction_uid=uid)
    request_commitment(archive, meta, read_request(payload, max_references=100), keep_s=DAY_S)
    assert work_on(archive, Journals(archive.store), meta, lambda: None)
    result = find_transaction(archive, "clinic", uid, keep_s=DAY_S).result
    assert result is not None
    return result


def settled(archive: Archive, *datasets: Dataset) -> None:
    store(archive, *datasets)
    catalogue_all(archive)
    load_all(archive)


def path_of(archive: Archive, ds: Dataset) -> Path:
    ref = InstanceRef.of("clinic", ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    path = archive.store.local_path(instance_path(ref))
    assert path is not None
    return path


def reasons(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {i["00081155"]["Value"][0]: i["00081197"]["Value"][0] for i in items}


def test_instances_that_are_safe_and_those_that_are_not(archive: Archive) -> None:
    good, damaged, lost, other_class, never = synthetic.ct_series(5)
    settled(archive, good, damaged, lost, other_class)
    data = bytearray(path_of(archive, damaged).read_bytes())
    data[-10] ^= 1
    path_of(archive, damaged).write_bytes(data)
    path_of(archive, lost).unlink()
    result = committed(
        archive,
        by_instances(
            *map(reference, (good, damaged, lost, never)),
            reference(other_class, "1.2.840.10008.5.1.4.1.1.4"),
        ),
    )
    assert result["00081199"] == element("SQ", reference(good))
    assert reasons(result["00081198"]["Value"]) == {
        str(damaged.SOPInstanceUID): 0x0110,
        str(lost.SOPInstanceUID): 0x0112,
        str(never.SOPInstanceUID): 0x0112,
        str(other_class.SOPInstanceUID): 0x0119,
    }


def test_whole_studies_are_answered_instance_by_instance(archive: Archive) -> None:
    one, two = synthetic.ct(series="one"), synthetic.ct(series="two")
    settled(archive, one, two)
    path_of(archive, two).write_bytes(b"nothing of it is left")
    study = {"0020000D": element("UI", str(one.StudyInstanceUID))}
    unknown = {"0020000D": element("UI", "1.2.99")}
    result = committed(archive, {"00081110": element("SQ", study, unknown)})
    (safe,) = result["00081110"]["Value"]
    failed, missing = result["0008119B"]["Value"]

    def instances(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return [
            instance
            for series in found["00081115"]["Value"]
            for of_class in series["00081112"]["Value"]
            for instance in of_class["0008114A"]["Value"]
        ]

    assert [i["00081155"]["Value"] for i in instances(safe)] == [[str(one.SOPInstanceUID)]]
    assert reasons(instances(failed)) == {str(two.SOPInstanceUID): 0x0110}
    assert missing["00081197"]["Value"] == [0x0112]


def test_named_instances_of_a_study(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    of_class = {
        "00081150": element("UI", str(ds.SOPClassUID)),
        "0008114A": element(
            "SQ", *({"00081155": element("UI", u)} for u in (ds.SOPInstanceUID, "1.9"))
        ),
    }
    series = {
        "0020000E": element("UI", str(ds.SeriesInstanceUID)),
        "00081112": element("SQ", of_class),
    }
    study = {
        "0020000D": element("UI", str(ds.StudyInstanceUID)),
        "00081115": element("SQ", series),
    }
    result = committed(archive, {"00081110": element("SQ", study)})
    assert set(result) == {"00081110", "0008119B"}


def test_what_was_stored_a_moment_ago_is_waited_for(archive: Archive) -> None:
    ds = synthetic.ct()
    store(archive, ds)
    request_commitment(archive, META, [Wanted(ds.SOPClassUID, ds.SOPInstanceUID)], keep_s=DAY_S)

    def settle() -> None:
        catalogue_all(archive)
        load_all(archive)

    assert work_on(archive, Journals(archive.store), META, settle)
    result = find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S).result
    assert result == by_instances(reference(ds))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "neither"),
        ({"00081199": {"vr": "SQ"}}, "neither"),
        ({"00081199": {"vr": "SQ", "Value": ["x"]}}, "not a sequence"),
        ({"00081199": {"vr": "SQ", "Value": [{}]}}, r"no \(0008,1150\)"),
        (by_instances({"00081150": element("UI", "x"), "00081155": element("UI", "1")}), "UID"),
        ({"00081110": {"vr": "SQ", "Value": [{}]}}, r"no \(0020,000D\)"),
        ({"00081110": 7, "00081199": []}, "neither"),
    ],
)
def test_request_that_asks_for_nothing_is_refused(payload: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read_request(payload, max_references=10)


def test_request_has_a_limit() -> None:
    items = [reference(ds) for ds in synthetic.ct_series(3)]
    assert len(read_request(by_instances(*items, *items), max_references=3)) == 3
    with pytest.raises(TooLarge):
        read_request(by_instances(*items), max_references=2)


def test_transaction_uid_is_used_once(archive: Archive) -> None:
    one, two = (Wanted("1.2", f"1.2.{n}") for n in (3, 4))
    request_commitment(archive, META, [one], keep_s=DAY_S)
    request_commitment(archive, META, [one], keep_s=DAY_S)
    with pytest.raises(DuplicateTransaction):
        request_commitment(archive, META, [two], keep_s=DAY_S)
    request_commitment(archive, replace(META, tenant_id="other"), [two], keep_s=DAY_S)
    assert find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S).wanted == [one]
    journals = Journals(archive.store)
    assert work_on(archive, journals, META, lambda: None)
    assert not work_on(archive, journals, META, lambda: None), "its result is there"


def test_request_whose_announcement_failed_can_be_made_again(archive: Archive) -> None:
    wanted = [Wanted("1.2", "1.2.3")]
    crashing = replace(archive, log=Crashing(archive.log, "publish", after=False))
    with pytest.raises(Crash):
        request_commitment(crashing, META, wanted, keep_s=DAY_S)
    request_commitment(archive, META, wanted, keep_s=DAY_S)
    (batch,) = batches_of(archive)
    assert CommitmentMeta.from_json(batch) == META


def batches_of(archive: Archive) -> list[bytes]:
    bodies = []
    for batch in batches(archive, Topic.COMMITMENT, "test"):
        bodies += [m.body for m in batch.messages]
        batch.commit()
    return bodies


def test_work_that_crashed_is_done_again(archive: Archive) -> None:
    ds = synthetic.ct()
    settled(archive, ds)
    request_commitment(archive, META, [Wanted(ds.SOPClassUID, ds.SOPInstanceUID)], keep_s=DAY_S)
    crashing = replace(archive, store=Crashing(archive.store, "append", after=False))
    with pytest.raises(Crash):
        work_on(crashing, Journals(archive.store), META, lambda: None)
    assert find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S).result is None
    assert work_on(archive, Journals(archive.store), META, lambda: None)
    assert find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S).result


def test_nothing_is_promised_while_a_service_is_down(archive: Archive) -> None:
    request_commitment(archive, META, [Wanted("1.2", "1.2.3")], keep_s=DAY_S)

    class Down:
        def query(self, *_: object) -> None:
            raise Unavailable("the warehouse is down")

    with pytest.raises(Unavailable):
        work_on(
            replace(archive, warehouse=Down()),  # type: ignore[arg-type]  # only asked
            Journals(archive.store), META, lambda: None,
        )  # fmt: skip
    assert find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S).result is None


def test_results_expire_and_are_forgotten(archive: Archive) -> None:
    request_commitment(archive, META, [Wanted("1.2", "1.2.3")], keep_s=DAY_S)
    with pytest.raises(Gone):
        find_transaction(archive, "clinic", "1.2.3", keep_s=-1)
    assert forget_commitments(archive, keep_s=DAY_S) == 0
    request_commitment(
        archive, replace(META, transaction_uid="1.2.4"), [Wanted("1", "1")], keep_s=DAY_S
    )
    assert forget_commitments(archive, keep_s=-1) == 2
    assert forget_commitments(archive, keep_s=-1) == 0
    with pytest.raises(NotFound):
        find_transaction(archive, "clinic", "1.2.3", keep_s=DAY_S)
    assert not work_on(archive, Journals(archive.store), META, lambda: None)
