"""The steps of an image through an archive that is open in this process."""

from collections.abc import Iterator
from threading import Event

from pydicom.dataset import Dataset

import synthetic
from wado.archive.catalogue import catalogue_batch
from wado.archive.journal import Journals
from wado.archive.store import Reception, Source, Stored, store_group
from wado.dicom.uids import InstanceRef, SeriesRef
from wado.ports import Archive, Batch
from wado.records import Topic
from wado.services.consumer import LOADED, load_batch

GROUP = "wado-consumer"


def store(archive: Archive, *sources: Dataset | bytes) -> list[Stored]:
    """Store data sets or files, and announce them."""
    receptions = []
    for source in sources:
        reception = Reception(archive, "clinic", Source())
        reception.write(source if isinstance(source, bytes) else synthetic.part10(source))
        reception.finish()
        receptions.append(reception)
    results = store_group(archive, Journals(archive.store), receptions)
    assert all(isinstance(r, Stored) for r in results), results
    return [r for r in results if isinstance(r, Stored)]


def batches(archive: Archive, topic: Topic, group: str) -> Iterator[Batch]:
    """Batches until the topic is read."""
    stop = Event()
    if archive.log.lag(topic, group) == 0:
        return
    for batch in archive.log.read(topic, group, stop):
        yield batch
        if archive.log.lag(topic, group) == 0:
            stop.set()


def catalogue_all(archive: Archive) -> None:
    """Catalogue what was announced."""
    journals = Journals(archive.store)
    for batch in batches(archive, Topic.STORAGE, GROUP):
        catalogue_batch(archive, journals, batch)
        batch.commit()


def load_all(archive: Archive) -> None:
    """Load what was catalogued into the warehouse."""
    for topic, table in LOADED.items():
        for batch in batches(archive, topic, "wado-warehouse"):
            load_batch(archive, table, batch)
            batch.commit()


def series_of(ds: Dataset) -> SeriesRef:
    """The series of a data set that was stored."""
    return ref_of(ds).series


def ref_of(ds: Dataset) -> InstanceRef:
    """Name an instance that was stored."""
    uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    return InstanceRef.of("clinic", *map(str, uids))
