"""Users and their passwords; who is known may do everything."""

import base64
import binascii
from collections.abc import Mapping

from backing.doris_stand_in.store import Store


class Accounts:
    """Who is known: `root` and `admin` without a password unless one is set, and those added.

    They are held in memory too: nobody waits for a load to find out who asks.
    """

    def __init__(self, store: Store, given: Mapping[str, str]) -> None:
        self._store = store
        self._known = store.accounts()
        for name, password in {"root": "", "admin": "", **given}.items():
            if name not in self._known or (name in given and self._known[name] != password):
                self.set(name, password)

    def set(self, name: str, password: str | None) -> None:
        """Add a user or change the password; None removes the user."""
        self._store.set_account(name, password)
        self._known = self._store.accounts()

    def password(self, name: str) -> str | None:
        """Give the password of a user; None if there is no such user."""
        return self._known.get(name)

    def knows(self, name: str, password: str) -> bool:
        """Whether name and password belong together."""
        return self.password(name) == password


def basic(authorization: str | None) -> tuple[str, str] | None:
    """Read name and password; a name may carry a cluster behind ``@``, which is cut."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name.partition("@")[0], password) if colon else None
