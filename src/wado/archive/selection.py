"""What a command is about: some studies, series or an instance, a tenant, or all there is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from wado.archive.delete import Ref
from wado.archive.journal import Journals, SeriesView
from wado.archive.reading import must_be_there
from wado.archive.retrieve import Item
from wado.dicom.uids import InstanceRef, SeriesRef, StudyRef, validate_tenant_id
from wado.errors import NotFound, Unreadable
from wado.ports import Archive, Level, Match, Query

JOURNAL_BYTES = 8 << 20
"""What a walk keeps of journals: little, as it comes by each series once."""
_MAX_SERIES = 100_000


def ref_of(tenant_id: str, uids: Sequence[str]) -> Ref:
    """Name a study, a series of it or an instance of that, by one to three UIDs.

    Raises
    ------
    InvalidRequest
        One is no UID, or the tenant none.
    """
    match uids:
        case (study,):
            return StudyRef.of(tenant_id, study)
        case (study, series):
            return SeriesRef.of(tenant_id, study, series)
        case (study, series, instance):
            return InstanceRef.of(tenant_id, study, series, instance)
    raise AssertionError(uids)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is chosen: `refs`, of one tenant or several; if there are none, all of a tenant, or all.

    Make it with `Selection.of`, which validates.
    """

    refs: tuple[Ref, ...] = ()
    tenant_id: str | None = None

    @classmethod
    def of(cls, refs: Sequence[Ref], tenant_id: str | None) -> "Selection":
        """Validate the tenant and make a selection."""
        return cls(tuple(refs), None if tenant_id is None else validate_tenant_id(tenant_id))

    def series(self, archive: Archive) -> Iterator[tuple[SeriesRef, int]]:
        """Walk the series, and how many chosen instances the index counts; with flat memory.

        Raises
        ------
        NotFound
            What is named is not there, be it a tenant of which there is nothing.
        """
        if not self.refs:
            state = None
            for state in archive.index.all_series(self.tenant_id):
                yield state.series, state.number_of_series_related_instances
            if state is None and self.tenant_id is not None:
                raise NotFound(f"there is nothing of tenant {self.tenant_id}")
        for ref in self.refs:
            yield from _series_of(archive, ref)

    def instances(self, archive: Archive) -> int:
        """Count the chosen instances, as the index has them."""
        return sum(count for _, count in self.series(archive))

    def items(self, view: SeriesView) -> Iterator[Item]:
        """Walk the chosen instances of a series.

        Raises
        ------
        NotFound
            The one that is named is not there.
        """
        at = view.ref
        only = [
            ref.sop_instance_uid
            for ref in self.refs
            if isinstance(ref, InstanceRef) and ref.series == at
        ]
        for uid in only or view.entries:
            entry = view.entries.get(uid)
            if entry is None:
                raise NotFound(f"there is no instance {uid}")
            ref = InstanceRef(at.tenant_id, at.study_instance_uid, at.series_instance_uid, uid)
            yield Item(ref, entry, view)


def views(
    archive: Archive,
    journals: Journals,
    chosen: Selection,
    unread: Callable[[SeriesRef, Unreadable], None] | None = None,
) -> Iterator[SeriesView]:
    """Read the journals of the chosen series, one after the other; raises as `Selection.series`.

    Those that the disk does not give are told to `unread`, and passed over; without it, raised.
    """
    for ref, _ in chosen.series(archive):
        try:
            view = journals.view(ref)
        except Unreadable as e:
            if unread is None:
                raise
            must_be_there(archive.store)  # else it is away
            unread(ref, e)
            continue
        if view is not None:
            yield view
        elif chosen.refs:
            raise NotFound(f"there is no {ref.path}")


def _series_of(archive: Archive, ref: Ref) -> Iterator[tuple[SeriesRef, int]]:
    if isinstance(ref, StudyRef):
        matches = (Match("study_instance_uid", "single", (ref.study_instance_uid,)),)
        rows = archive.index.search(Query(ref.tenant_id, Level.SERIES, matches, limit=_MAX_SERIES))
    else:
        at = ref if isinstance(ref, SeriesRef) else ref.series
        row = archive.index.series(at)
        rows = [] if row is None else [row]
    if not rows:
        raise NotFound(f"there is no {ref.path}")
    for row in rows:
        at = SeriesRef(ref.tenant_id, ref.study_instance_uid, row["series_instance_uid"])
        count = int(row["number_of_series_related_instances"])
        yield at, min(count, 1) if isinstance(ref, InstanceRef) else count
