"""Conversions of stored instances, and what came of them."""

import hashlib
from pathlib import Path

from pydicom.dataset import Dataset

import copies
from copies import HTJ2K_RPCL
from steps import batches
from wado.archive.conversion import announce, convert
from wado.archive.copies import Converter
from wado.archive.retrieve import Item, copy_of
from wado.archive.wanted_copies import order
from wado.dicom.uids import InstanceRef
from wado.ports import Archive
from wado.records import DicomStoreMeta, Topic, TranscodeLog, TranscodeMeta


def stored(archive: Archive, source: Dataset | Path) -> DicomStoreMeta:
    """Store and catalogue an instance; how it was announced."""
    (meta,) = copies.store(archive, source.read_bytes() if isinstance(source, Path) else source)
    return meta


def asked(meta: DicomStoreMeta, target: str = HTJ2K_RPCL, quality: int = 0) -> TranscodeMeta:
    """Ask for a copy."""
    return order(meta.ref, meta, target, quality, meta.trace_id)


def made(converter: Converter, meta: TranscodeMeta) -> Path:
    """Make and announce a copy that is to succeed; its file, seen to be what is announced."""
    converted = convert(converter, meta)
    assert converted is not None
    assert converted.row.reason is None
    assert announce(converter.archive, converter.journals, [converted]) == [converted]
    copy = copy_of(item_of(converter, meta.ref), converted.row.target_transfer_syntax_uid)
    assert copy is not None
    assert copy.copy is not None
    path = converter.archive.store.local_path(copy.path)
    assert path is not None
    data = path.read_bytes()
    assert copy.copy.digest == hashlib.sha256(data).hexdigest()
    assert copy.copy.file_size == len(data)
    return path


def item_of(converter: Converter, ref: InstanceRef) -> Item:
    """Find an instance, as its journal has it now."""
    view = converter.journals.view(ref.series)
    assert view is not None
    return Item(ref, view.entries[ref.sop_instance_uid], view)


def failure(converter: Converter, meta: TranscodeMeta) -> str:
    """Fail to make a copy; why. Nothing of it is there, and the original is as it was."""
    converted = convert(converter, meta)
    assert converted is not None
    assert converted.copy is None
    assert not converted.row.succeeded
    assert converted.row.derived_path is None
    announce(converter.archive, converter.journals, [converted])
    target = meta.target_transfer_syntax_uid
    derived = item_of(converter, meta.ref).entry.derived
    assert derived.failures == {target: converted.row.reason}
    assert no_copies(converter.archive)
    assert converter.archive.store.version(meta.file_path) is not None
    return converted.row.reason or ""


def no_copies(archive: Archive) -> bool:
    """Whether there is no file of any copy."""
    root = archive.store.local_path("derived")
    assert root is not None
    return not [path for path in root.rglob("*") if path.is_file()]


def rows(archive: Archive) -> list[TranscodeLog]:
    """Rows for the warehouse that were published."""
    found = []
    for batch in batches(archive, Topic.TRANSCODE_LOG, "test"):
        found += [TranscodeLog.from_json(message.body) for message in batch.messages]
        batch.commit()
    return found
