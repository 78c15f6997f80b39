"""Reading the files of a store: one that can't be read is told from a store that is away."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from wado import vitals
from wado.errors import NotFound, OutOfResources, Unavailable, Unreadable
from wado.ports import InstanceStore

_PROBE_PATH = "run/probe.json"
_NEIGHBOURS = 20
"""So many other originals are tried: where most of them can't be read, it is not the one."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise what the disk says to who reads a file of the store as Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except Unavailable as e:
        raise Unreadable(str(e)) from e
    except OSError as e:
        raise Unreadable(f"reading {path}: {e.strerror or e}") from e


def must_answer(store: InstanceStore) -> None:
    """See that a store is there, in which something can't be read: it takes and gives a document.

    Raises
    ------
    OutOfResources, Unavailable
        It does not: what can't be read is to be waited for.
    """
    # Not looked at: another may write it now. It stays; it is the same few bytes each time.
    store.put_document(_PROBE_PATH, [b"{}\n"])
    with reading(_PROBE_PATH), store.open(_PROBE_PATH) as file:
        file.read()
    vitals.goes_on()


def must_be_there(store: InstanceStore) -> None:
    """See that a store is there for who only reads: it may be full, or mounted read-only.

    Raises
    ------
    Unavailable
        It is away.
    """
    with suppress(OutOfResources):
        must_answer(store)


def must_give_others(store: InstanceStore, tenant_id: str, unread: Collection[str]) -> None:
    """See that other originals of a tenant can be read than those at `unread`, if there are any.

    A file system may be mounted for a tenant, and be away by itself.

    Raises
    ------
    OutOfResources, Unavailable
        Most of the first can't: what can't be read is to be waited for.
    """
    must_answer(store)
    files = (file.file_path for file in store.instances(tenant_id))
    others = list(islice((path for path in files if path not in unread), _NEIGHBOURS))
    count = sum(_is_read(store, path) for path in others)
    if 2 * count < len(others):
        raise Unavailable(f"{count} of {len(others)} originals of {tenant_id} can be read")


def _is_read(store: InstanceStore, path: str) -> bool:
    vitals.goes_on()
    with suppress(Unavailable, NotFound), reading(path), store.open(path) as file:
        return bool(file.read(1))
    return False
