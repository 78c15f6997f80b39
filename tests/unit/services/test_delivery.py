"""Bodies on their way out: what takes long to make is made no faster than it is read."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from wado.archive.pieces import Computed, FileSlice, Piece
from wado.bootstrap import open_archive
from wado.services.server.calls import Answer
from wado.services.server.delivery import CHUNK_BYTES, WHOLE_BYTES, deliver
from wado.services.server.service import Service, open_service
from wado.settings import load_settings
from web import run_alone

LONG = WHOLE_BYTES + 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = load_settings(storage={"root": tmp_path_factory.mktemp("delivery")})
    with (
        open_archive(settings) as archive,
        open_service(archive, settings.server, default_tenant="default") as opened,
    ):
        yield opened


class Client:
    """Takes what is sent; goes away after some of it."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.taken: list[bytes] = []

    async def send(self, data: bytes | bytearray, *, more: bool = True) -> None:  # noqa: ARG002
        if len(self.taken) >= self.most:
            raise ConnectionResetError
        self.taken.append(bytes(data))


def delivered(service: Service, answer: Answer, client: Client) -> int:
    sent: int = run_alone(deliver(service, answer, cast("Any", client)))
    return sent


def test_long_pieces_are_made_when_the_one_before_was_taken(service: Service):
    client = Client()
    ahead = []

    def pieces() -> Iterator[Piece]:
        for number in range(5):
            ahead.append(number - len(client.taken))
            yield bytes([number]) * LONG

    assert delivered(service, Answer(stream=pieces(), slow=True), client) == 5 * LONG
    assert client.taken == [bytes([number]) * LONG for number in range(5)]
    assert ahead == [0] * 5, "nothing is made ahead"


def test_nothing_is_made_for_who_went_away(service: Service):
    made = []

    def pieces() -> Iterator[Piece]:
        for number in range(100):
            made.append(number)
            yield bytes(LONG)

    with pytest.raises(ConnectionResetError):
        delivered(service, Answer(stream=pieces(), slow=True), Client(most=3))
    assert len(made) == 4


def test_small_pieces_go_out_together_and_in_order(service: Service):
    pieces: list[Piece] = [bytes([number]) * 10 for number in range(100)]
    client = Client()
    stream = [*pieces, b"\xff" * LONG, Computed(10, lambda: b"computed 1"), b"end"]
    delivered(service, Answer(stream=iter(stream), slow=True), client)
    assert [len(data) for data in client.taken] == [1000, LONG, 13]
    small = b"".join(bytes([number]) * 10 for number in range(100))
    assert b"".join(client.taken) == small + b"\xff" * LONG + b"computed 1end"


def test_long_files_go_out_in_steps(service: Service):
    whole = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"end"
    path = service.archive.store.local_path("long")
    assert path is not None
    path.write_bytes(whole)
    client = Client()
    stream: list[Piece] = [b"head", FileSlice("long", 0, len(whole))]
    delivered(service, Answer(stream=iter(stream), slow=True), client)
    assert b"".join(client.taken) == b"head" + whole
    assert max(map(len, client.taken)) == CHUNK_BYTES
