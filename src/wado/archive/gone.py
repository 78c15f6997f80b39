"""What is not there: unknown, or deleted and still remembered (PS3.18 §8.5: 404 or 410)."""

from wado.archive.journal import Journals
from wado.archive.paths import deletion_path
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import Gone, NotFound
from wado.ports import InstanceStore


def no_instance(journals: Journals, ref: InstanceRef) -> NotFound:
    """Make the error for an instance that is not there."""
    memory = journals.memory(ref.series)
    if memory is not None and ref.sop_instance_uid in memory.deleted:
        return Gone("the instance was deleted")
    return NotFound("no such instance")


def no_series(journals: Journals, ref: SeriesRef) -> NotFound:
    """Make the error for a series that has no instances."""
    memory = journals.memory(ref)
    if memory is not None and memory.deleted:
        return Gone("the series was deleted")
    return NotFound("no such series")


def no_study(store: InstanceStore, ref: StudyRef) -> NotFound:
    """Make the error for a study that has no instances."""
    if store.version(deletion_path(ref)) is not None:
        return Gone("the study was deleted")
    return NotFound("no such study")
