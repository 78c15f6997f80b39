"""``multipart/related`` (RFC 2387), read and written piece by piece; no input or output here.

The reader holds no more than one header line and a boundary's length of data, whatever the size
of the parts. It forgives what real clients do (CRLF or text before the first boundary, spaces
behind a boundary, no CRLF at the end), but never takes a message that ends early for a whole one.
"""

from dataclasses import dataclass
from hashlib import sha256

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from wado.errors import InvalidRequest

MAX_BOUNDARY_LENGTH = 200
MAX_PREAMBLE_BYTES = 65536
MAX_HEADER_BYTES = 8192
MAX_HEADERS = 32


@dataclass(frozen=True, slots=True)
class PartBegin:
    """The headers of a part; names in lower case."""

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the part, valid until the next `MultipartReader.feed`."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is whole."""


Event = PartBegin | PartData | PartEnd


class MultipartReader:
    """Turns the bytes of a message into events.

    Parameters
    ----------
    boundary
        As in the Content-Type, without quotes.

    Raises
    ------
    InvalidRequest
        The boundary is empty or too long.
    """

    def __init__(self, boundary: str) -> None:
        if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH or not boundary.isascii():
            raise InvalidRequest("the Content-Type names no usable boundary")
        self._delimiter = b"--" + boundary.encode()
        self._preamble: bytearray | None = bytearray()
        self._events: list[Event] = []
        self._headers: dict[str, str] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )

    @property
    def ended(self) -> bool:
        """Whether the closing boundary was read."""
        return self._ended

    def feed(self, data: bytes) -> list[Event]:
        """Read the next bytes; the events that they complete.

        Raises
        ------
        InvalidRequest
            The bytes are not a multipart message with this boundary.
        """
        if self._preamble is not None:
            data = self._skip_preamble(data)
        self._events = []
        try:
            self._parser.write(data)
        except FormParserError as e:
            raise InvalidRequest(f"broken multipart message: {e}") from e
        return self._events

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises
        ------
        InvalidRequest
            The closing boundary is missing: the message was cut off.
        """
        if not self._ended:
            raise InvalidRequest("the multipart message ends before its closing boundary")

    def _skip_preamble(self, data: bytes) -> bytes:
        """Hold back bytes until a delimiter begins a line (RFC 2046 §5.1.1)."""
        held = self._preamble
        assert held is not None
        held += data
        start = 0 if held.startswith(self._delimiter) else held.find(b"\n" + self._delimiter) + 1
        if start == 0 and not held.startswith(self._delimiter):
            if len(held) > MAX_PREAMBLE_BYTES:
                raise InvalidRequest("the boundary of the Content-Type is not in the message")
            return b""
        self._preamble = None
        return bytes(memoryview(held)[start:])

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += memoryview(data)[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += memoryview(data)[start:end]

    def _on_header_end(self) -> None:
        name = self._name.decode("latin-1").strip().lower()
        self._headers.setdefault(name, self._value.decode("latin-1").strip())
        self._name.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        self._events.append(PartBegin(self._headers))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(memoryview(data)[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self._ended = True


def boundary_of(*identity: str) -> str:
    """Make the boundary of a resource: the same for the same content, so that Range works.

    `identity` names the resource *and* its content (a digest): then nobody can write a file that
    holds the boundary it will be sent with. Long, because clients search for it naively
    (PS3.18 §8.6.1.2).
    """
    digest = sha256("\0".join(identity).encode()).hexdigest()
    return f"wado-{digest[:48]}"


def content_type(boundary: str, part_type: str) -> str:
    """Content-Type of the message; `part_type` is the media type of its first part."""
    return f'multipart/related; type="{part_type}"; boundary={boundary}'


def part_head(
    boundary: str, part_type: str, *, first: bool, length: int | None = None, location: str = ""
) -> bytes:
    """Delimiter and headers of a part, spelled as strict clients compare them.

    ``Content-Type:`` comes first and in this case: a client in wide use looks for it literally.
    """
    lines = [f"--{boundary}", f"Content-Type: {part_type}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if location:
        lines.append(f"Content-Location: {location}")
    text = "\r\n".join(lines) + "\r\n\r\n"
    return (text if first else "\r\n" + text).encode()


def closing(boundary: str) -> bytes:
    """End of the message."""
    return f"\r\n--{boundary}--\r\n".encode()
