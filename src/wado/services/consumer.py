"""wado-consumer: catalogues what `storage_queue` announces, and loads the warehouse."""

import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Event, Thread
from typing import cast

from wado import vitals
from wado.archive.catalogue import catalogue_batch
from wado.archive.journal import Journals
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, OutOfResources, Unavailable
from wado.ports import Archive, Batch, Delivered
from wado.records import DicomImageMeta, DicomImageRemoval, Table, Topic
from wado.services.patience import Patience
from wado.settings import ConsumerSettings

_CATALOGUE_GROUP = "wado-consumer"
_LOADER_GROUP = "wado-warehouse"
_LONGEST_PAUSE_S = 0.03
_STOP_WITHIN_S = 8.0
"""How long loads in hand are waited for at the end; one that hangs comes again, by its label."""

_REMOVAL = b'"removed_sop_instance_uids":'
"""Tells the record of a removal from that of an image, without parsing each."""

LOADED: dict[Topic, Table] = {
    Topic.LOG: "dicom_object_meta",
    Topic.DICOM_STATE: "dicom_state_meta",
    Topic.DICOM_IMAGE: "dicom_image_meta",
    Topic.WEBAPI_ACCESS: "wado_access_log",
    Topic.TRANSCODE_LOG: "dicom_transcode_log",
}


def run(archive: Archive, settings: ConsumerSettings, stop: Event) -> None:
    """Catalogue and load until `stop` is set. At least once; commits come last."""
    failures: list[BaseException] = []

    def guarded(topic: Topic, table: Table) -> None:
        try:
            load_topic(archive, settings, topic, table, stop)
        except BaseException as e:  # noqa: BLE001 - the main thread raises it again
            failures.append(e)
            stop.set()

    loaders = [
        Thread(target=guarded, args=(topic, table), name=f"load-{table}", daemon=True)
        for topic, table in LOADED.items()
        if table in settings.load_tables
    ]
    for loader in loaders:
        loader.start()
    try:
        catalogue_storage(archive, settings, stop)
    finally:
        stop.set()
        end = time.monotonic() + _STOP_WITHIN_S
        for loader in loaders:
            loader.join(max(0.0, end - time.monotonic()))
    if failures:
        raise failures[0]


def catalogue_storage(archive: Archive, settings: ConsumerSettings, stop: Event) -> None:
    """Catalogue batches of `storage_queue`; a service that is down is waited for."""
    journals = Journals(archive.store)
    patience = Patience("consumer", "catalogue", stop)

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Unavailable("the service is stopping")

    while not stop.is_set():
        try:
            # Opened (and its library loaded) now, so that the first image does not wait for it.
            archive.index.awaiting_description(1)
            for batch in archive.log.read(
                Topic.STORAGE, _CATALOGUE_GROUP, stop, max_messages=settings.batch_messages
            ):
                began = time.monotonic()
                with vitals.at("catalogue"):
                    catalogue_batch(archive, journals, batch, pause)
                    batch.commit()
                _count_catalogued(batch, time.monotonic() - began)
                patience.reset()
                if len(batch.messages) < settings.batch_messages // 2:
                    # Each batch costs some flushes, and those who wait for an acknowledgement wait
                    # for the same disk: half of the time is theirs, until there is a backlog.
                    stop.wait(min(time.monotonic() - began, _LONGEST_PAUSE_S))
        except (Unavailable, OutOfResources) as e:
            if not stop.is_set():
                patience.wait(e)


def load_topic(
    archive: Archive, settings: ConsumerSettings, topic: Topic, table: Table, stop: Event
) -> None:
    """Load a record topic into its table; the label makes a replay harmless."""
    patience = Patience("consumer", f"load {table}", stop)
    while not stop.is_set():
        try:
            # Opened now, too; a table that is missing is told before there are records for it.
            archive.warehouse.query(f"SELECT tenant_id FROM {table} LIMIT 1")  # noqa: S608
            for batch in archive.log.read(
                topic, _LOADER_GROUP, stop, max_messages=settings.batch_messages * 4
            ):
                began = time.monotonic()
                with vitals.at(cast("vitals.Activity", f"load {table}")):
                    load_batch(archive, table, batch)
                    batch.commit()
                _count_loaded(batch, time.monotonic() - began)
                patience.reset()
                stop.wait(settings.load_interval_s)
        except (Unavailable, OutOfResources) as e:
            patience.wait(e)


def _count_catalogued(batch: Batch, seconds: float) -> None:
    vitals.count("wado_batches_catalogued")
    vitals.count("wado_messages_catalogued", len(batch.messages))
    vitals.count("wado_catalogue_seconds", seconds)


def _count_loaded(batch: Batch, seconds: float) -> None:
    vitals.count("wado_loads")
    vitals.count("wado_messages_loaded", len(batch.messages))
    vitals.count("wado_load_seconds", seconds)


def load_batch(archive: Archive, table: Table, batch: Batch) -> None:
    """Load a batch of records into their table; one that does not fit is a dead letter."""
    if any(_REMOVAL in m.body for m in batch.messages):
        _load_with_removals(archive, table, batch)
        return
    _load(archive, table, batch, batch.messages, batch.label)


def _load(
    archive: Archive, table: Table, batch: Batch, messages: Sequence[Delivered], label: str
) -> None:
    """Load messages; if there are some that do not fit, each half by itself.

    So a bad one is found with few loads. A replay halves in the same way, to the same labels.
    """
    # A message of the access log holds several records, one to a line.
    rows = [line for m in messages for line in m.body.splitlines()]
    vitals.goes_on()
    try:
        archive.warehouse.load(table, rows, label)
    except InvalidMessage as e:
        if len(messages) == 1:
            batch.reject(messages[0], str(e))
            return
        middle = len(messages) // 2
        for half in (messages[:middle], messages[middle:]):
            name = f"{batch.label}-{half[0].offset}-{half[-1].offset}"
            _load(archive, table, batch, half, name)


def _load_with_removals(archive: Archive, table: Table, batch: Batch) -> None:
    """Load what is left of a batch in which instances were deleted, too.

    What is removed and comes again is replaced by its row: removing it here would, in a replay,
    take away what the label says is loaded.
    """
    rows: dict[tuple[SeriesRef, str], Delivered] = {}
    removed: dict[SeriesRef, set[str]] = defaultdict(set)
    for message in batch.messages:
        try:
            if _REMOVAL in message.body:
                removal = DicomImageRemoval.from_json(message.body)
                for uid in removal.removed_sop_instance_uids:
                    rows.pop((removal.series, uid), None)
                    removed[removal.series].add(uid)
            else:
                image = DicomImageMeta.from_json(message.body)
                series = SeriesRef(
                    image.tenant_id, image.study_instance_uid, image.series_instance_uid
                )
                rows[series, image.sop_instance_uid] = message
        except InvalidMessage as e:
            batch.reject(message, str(e))
    for number, (series, uids) in enumerate(removed.items()):
        gone = sorted(uid for uid in uids if (series, uid) not in rows)
        if gone:
            archive.warehouse.delete(series, gone, f"{batch.label}-removed-{number}")
        vitals.goes_on()
    if rows:
        _load(archive, table, batch, list(rows.values()), batch.label)
