"""Attempts of the transcode queue: some are made to fail, and all are on record."""

from threading import Event

import pytest
from pydicom.dataset import Dataset

import copies
import synthetic
from copies import deflated
from steps import batches, load_all
from wado.archive.conversion import convert
from wado.archive.copies import Converted, Converter
from wado.errors import CutShort
from wado.ports import Archive
from wado.records import Topic, TranscodeMeta
from wado.services import transcode_worker
from wado.services.transcode_worker import GROUP


class Attempts:
    """Calls of `convert`; some fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, int]] = []
        self.failing: dict[str, list[Exception]] = {}
        monkeypatch.setattr(transcode_worker, "convert", self)

    def __call__(self, converter: Converter, meta: TranscodeMeta) -> Converted | None:
        self.made.append((meta.sop_instance_uid, meta.attempt))
        waiting = self.failing.get(meta.sop_instance_uid)
        if waiting:
            failure = waiting.pop(0)
            if not isinstance(failure, CutShort) or meta.attempt < converter.settings.attempts:
                raise failure
        return convert(converter, meta)


def one(archive: Archive) -> None:
    """Work on one batch."""
    with copies.a_worker(archive, Event()) as worker:
        worker.work_on(next(batches(archive, Topic.TRANSCODE, GROUP)))


def label_of(archive: Archive) -> str:
    return next(batches(archive, Topic.TRANSCODE, GROUP)).label


def rows_of(archive: Archive, ds: Dataset) -> list[tuple[int, bool, str | None]]:
    """Attempts at an image that are on record: number, whether it went well, and why not."""
    load_all(archive)
    rows = archive.warehouse.query(
        "SELECT attempt, succeeded, reason FROM dicom_transcode_log"
        " WHERE sop_instance_uid = ? ORDER BY attempt",
        [str(ds.SOPInstanceUID)],
    )
    return [(row["attempt"], row["succeeded"], row["reason"]) for row in rows]


def some(count: int) -> list[Dataset]:
    return [deflated(ds) for ds in synthetic.ct_series(count)]
