"""Files set aside: what could not be understood, and what was deleted until its grace ends.

They keep their path below a folder of ours; of several that came by the same path, the later
ones have a number behind it.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

from wado.archive.digests import digest_of
from wado.archive.paths import DERIVED, instance_path
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef
from wado.errors import NotFound
from wado.ports import InstanceStore, StoredFile

DELETED = "deleted"
"""Folder of the originals that were deleted."""
_QUARANTINE = "quarantine"
_MAX_REMOVED = 500
"""Files removed at a time."""


def quarantine(store: InstanceStore, path: str, reason: str) -> None:
    """Move a file out of the archive to the quarantine, the reason beside it."""
    kept, number = f"{_QUARANTINE}/{path}", 1
    if store.version(path) is not None:  # else moved before a crash
        while store.version(kept) is not None:  # another file that came by its name
            number += 1
            kept = f"{_QUARANTINE}/{path}.{number}"
    note = json.dumps({"file_path": path, "reason": reason}, indent=1).encode()
    store.put_document(f"{kept}.reason.json", [note])
    store.move({path: kept})


def set_deleted_aside(store: InstanceStore, paths: Iterable[str]) -> None:
    """Move originals to where deleted ones are kept; those moved already are passed over."""
    number, moves = 1, {path: f"{DELETED}/{path}" for path in paths}
    while moves:
        moved = store.move(moves)
        number += 1
        moves = {
            path: f"{DELETED}/{path}.{number}"
            for path in moves
            if path not in moved and store.version(path) is not None
        }


def deleted_files(
    store: InstanceStore, under: str | StudyRef | SeriesRef | InstanceRef | None = None
) -> Iterator[StoredFile]:
    """Originals that were deleted and are still kept, in order of their paths."""
    if not isinstance(under, InstanceRef):
        yield from store.instances(under, place=DELETED)
        return
    for file in store.instances(under.series, place=DELETED):
        if file.ref == under:
            yield file


def remove_copies(
    store: InstanceStore,
    under: StudyRef | SeriesRef | None = None,
    sop_instance_uids: Collection[str] | None = None,
) -> None:
    """Remove the derived copies of some instances, or of all; they can be made again."""
    paths: list[str] = []
    for file in store.instances(under, place=DERIVED):
        if sop_instance_uids is None or file.ref.sop_instance_uid in sop_instance_uids:
            paths.append(file.file_path)
        if len(paths) == _MAX_REMOVED:
            store.delete(paths)
            paths = []
    store.delete(paths)


def bring_back(store: InstanceStore, ref: InstanceRef, *, digest: str = "") -> bool:
    """Give a deleted original its place again: the copy with this digest, or that deleted last.

    False if there is none, or its place is taken.
    """
    copies = sorted(deleted_files(store, ref), key=lambda file: -file.changed_s)
    for file in copies:
        try:
            is_it = not digest or digest_of(store, file.file_path) == digest
        except NotFound:  # another gave it its place a moment ago
            continue
        if is_it:
            return bool(store.move({file.file_path: instance_path(ref)}))
    return False


def deleted_at(file: StoredFile) -> str:
    """Say when a file that is kept was deleted (ISO 8601, UTC)."""
    return datetime.fromtimestamp(file.changed_s, UTC).isoformat(timespec="microseconds")
