"""wado-consumer: catalogues what `storage_queue` announces, and loads the warehouse."""

import time
from collections import defaultdict
from threading import Event, Thread

from wado.archive.catalogue import catalogue_batch
from wado.archive.journal import Journals
from wado.dicom.uids import SeriesRef
from wado.errors import InvalidMessage, OutOfResources, Unavailable, WadoError
from wado.ports import Archive, Batch, Delivered
from wado.records import DicomImageMeta, DicomImageRemoval, Table, Topic
from wado.settings import ConsumerSettings
from wado.telemetry import get_logger

_log = get_logger("consumer")
_CATALOGUE_GROUP = "wado-consumer"
_LOADER_GROUP = "wado-warehouse"
_LONGEST_PAUSE_S = 0.03
_FIRST_BACK_OFF_S = 0.2
_LONGEST_BACK_OFF_S = 10.0

_REMOVAL = b'"removed_sop_instance_uids":'
"""Tells the record of a removal from that of an image, without parsing each."""

LOADED: dict[Topic, Table] = {
    Topic.LOG: "dicom_object_meta",
    Topic.DICOM_STATE: "dicom_state_meta",
    Topic.DICOM_IMAGE: "dicom_image_meta",
    Topic.WEBAPI_ACCESS: "wado_access_log",
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
        Thread(target=guarded, args=item, name=f"load-{item[1]}", daemon=True)
        for item in LOADED.items()
    ]
    for loader in loaders:
        loader.start()
    try:
        catalogue_storage(archive, settings, stop)
    finally:
        stop.set()
        for loader in loaders:
            loader.join()
    if failures:
        raise failures[0]


def catalogue_storage(archive: Archive, settings: ConsumerSettings, stop: Event) -> None:
    """Catalogue batches of `storage_queue`; a service that is down is waited for."""
    journals = Journals(archive.store)
    patience = _Patience("catalogue", stop)
    while not stop.is_set():
        try:
            # Opened (and its library loaded) now, so that the first image does not wait for it.
            archive.index.awaiting_description(1)
            for batch in archive.log.read(
                Topic.STORAGE, _CATALOGUE_GROUP, stop, max_messages=settings.batch_messages
            ):
                began = time.monotonic()
                catalogue_batch(archive, journals, batch)
                batch.commit()
                patience.reset()
                if len(batch.messages) < settings.batch_messages // 2:
                    # Each batch costs some flushes, and those who wait for an acknowledgement wait
                    # for the same disk: half of the time is theirs, until there is a backlog.
                    stop.wait(min(time.monotonic() - began, _LONGEST_PAUSE_S))
        except (Unavailable, OutOfResources) as e:
            patience.wait(e)


def load_topic(
    archive: Archive, settings: ConsumerSettings, topic: Topic, table: Table, stop: Event
) -> None:
    """Load a record topic into its table; the label makes a replay harmless."""
    patience = _Patience(f"load {table}", stop)
    while not stop.is_set():
        try:
            archive.warehouse.count(table)  # opened now, too
            for batch in archive.log.read(
                topic, _LOADER_GROUP, stop, max_messages=settings.batch_messages * 4
            ):
                load_batch(archive, table, batch)
                batch.commit()
                patience.reset()
                stop.wait(settings.load_interval_s)
        except (Unavailable, OutOfResources) as e:
            patience.wait(e)


def load_batch(archive: Archive, table: Table, batch: Batch) -> None:
    """Load a batch of records into their table; one that does not fit is a dead letter."""
    if any(_REMOVAL in m.body for m in batch.messages):
        _load_with_removals(archive, table, batch)
        return
    try:
        # A message of the access log holds several records, one to a line.
        rows = [line for m in batch.messages for line in m.body.splitlines()]
        archive.warehouse.load(table, rows, batch.label)
    except InvalidMessage:
        # One bad row must not hold back the others: find it.
        for message in batch.messages:
            label = f"{batch.label}-{message.offset}"
            try:
                archive.warehouse.load(table, message.body.splitlines(), label)
            except InvalidMessage as e:
                batch.reject(message, str(e))


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
    for series, uids in removed.items():
        gone = sorted(uid for uid in uids if (series, uid) not in rows)
        if gone:
            archive.warehouse.delete(series, gone)
    if rows:
        archive.warehouse.load(table, [m.body for m in rows.values()], batch.label)


class _Patience:
    """Back-off, logged: a service that is down is waited for, visibly."""

    def __init__(self, what: str, stop: Event) -> None:
        self._what = what
        self._stop = stop
        self._delay_s = 0.0

    def wait(self, e: WadoError) -> None:
        self._delay_s = min(max(self._delay_s * 2, _FIRST_BACK_OFF_S), _LONGEST_BACK_OFF_S)
        _log.warning("waiting", doing=self._what, reason=str(e), retry_in_s=self._delay_s)
        self._stop.wait(self._delay_s)

    def reset(self) -> None:
        if self._delay_s:
            _log.info("working again", doing=self._what)
        self._delay_s = 0.0
