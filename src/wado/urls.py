"""Addresses of services: their passwords are read from files, and never shown."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from wado.errors import InvalidRequest

_SECRET = re.compile(
    r"(?i)([?&;](?:[^=&;]*(?:password|secret|token|credential)[^=&;]*)=)([^&;#]*)", re.ASCII
)


def shown(url: str) -> str:
    """Give a URL as it may stand in messages and logs: each password is three asterisks."""
    head, separator, rest = url.partition("://")
    if separator:
        authority, slash, path = _cut(rest)
        user, at, hosts = authority.rpartition("@")
        name, colon, _password = user.partition(":")
        rest = f"{name}{':***' if colon else ''}{at}{hosts}{slash}{path}"
    return _SECRET.sub(r"\1***", f"{head}{separator}{rest}")


def _cut(rest: str) -> tuple[str, str, str]:
    """Authority, the character that ends it, and what follows.

    A password that was not percent-encoded may hold a slash: the authority then goes on until
    its last ``@``, so that nothing of it is shown.
    """
    end = re.search(r"[/?#]", rest)
    if end is None:
        return rest, "", ""
    at = rest.rfind("@")
    if at > end.start() and ":" in rest[: end.start()] and not re.search(r"[?#]", rest[:at]):
        end = re.search(r"[/?#]", rest[at:])
        if end is None:
            return rest, "", ""
        return rest[: at + end.start()], end.group(), rest[at + end.end() :]
    return rest[: end.start()], end.group(), rest[end.end() :]


def password_of(url: str, password_file: Path | None, setting: str) -> str | None:
    """Read the password of a service: of its file, if one is named, else of its URL, or None.

    Parameters
    ----------
    url
        Where the service is; a password in it is percent-decoded.
    password_file
        The file; a line break at its end is not part of the password.
    setting
        Name of the setting that names the file, for messages.

    Raises
    ------
    InvalidRequest
        The file can't be read, or is empty.
    """
    if password_file is None:
        password = urlsplit(url).password
        return unquote(password) if password is not None else None
    try:
        text = password_file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise InvalidRequest(f"{setting} = '{password_file}' can't be read: {reason}") from e
    if not text:
        raise InvalidRequest(f"{setting} = '{password_file}' is empty")
    return text


def with_password(url: str, password: str | None) -> str:
    """Put a password into a URL, in place of one that is there; None leaves it as it is."""
    if password is None:
        return url
    parts = urlsplit(url)
    before, _at, hosts = parts.netloc.rpartition("@")
    user = before.partition(":")[0]
    netloc = f"{user}:{quote(password, safe='')}@{hosts}"
    return urlunsplit(parts._replace(netloc=netloc))
