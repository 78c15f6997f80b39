"""The receiver: C-STORE and C-ECHO, every status, and what is kept."""

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import synthetic
from dimse import CT, CT_ID, ECHO_ID, EXPLICIT, VERIFICATION, RawPeer, echo_request, pdata, receiver
from dimse import store_request as request
from wado.dicom.command import Command, encode_command_set
from wado.dicom.pdu import COMMAND, LAST, PDUType
from wado.errors import OutOfResources, Unavailable
from wado.ports import Archive
from wado.services.association import Peer
from wado.settings import Settings

WHOLE_COMMAND = COMMAND | LAST


@pytest.fixture
def scp(archive: Archive, settings: Settings) -> Iterator[Peer]:
    with receiver(archive, settings.storescp) as peer:
        yield peer


@pytest.fixture
def raw(scp: Peer) -> Iterator[RawPeer]:
    with RawPeer(scp) as peer:
        peer.associate()
        yield peer


def _stored(settings: Settings, tenant: str = "default") -> list[Path]:
    return sorted((settings.storage.root / tenant).glob("*/*/*.dcm"))


def _left_over(settings: Settings) -> list[Path]:
    return sorted(settings.storage.root.rglob("*.part"))


def test_an_image_is_stored_as_it_was_sent(raw, settings):
    ds = synthetic.ct()
    response = raw.store(ds)
    assert response.status == 0
    assert response.command_field == 0x8001
    assert response.message_id_being_responded_to == 1
    assert response.affected_sop_instance_uid == ds.SOPInstanceUID
    assert not response.has_data_set
    (path,) = _stored(settings)
    assert path.name == f"{ds.SOPInstanceUID}.dcm"
    assert path.read_bytes().endswith(synthetic.data_set(ds))
    raw.release()


def test_many_images_on_one_association(raw, settings):
    series = synthetic.ct_series(20)
    statuses = [raw.store(ds, message_id=n).status for n, ds in enumerate(series, 1)]
    assert statuses == [0] * 20
    assert len(_stored(settings)) == 20


def test_echo(raw):
    response = raw.echo(77)
    assert response.command_field == 0x8030
    assert response.status == 0
    assert response.message_id_being_responded_to == 77
    assert response.affected_sop_class_uid == VERIFICATION


def test_the_same_again_is_success_and_other_bytes_are_a_duplicate(raw):
    ds = synthetic.ct()
    assert raw.store(ds).status == 0
    assert raw.store(ds).status == 0
    ds.PatientComments = "changed"
    response = raw.store(ds)
    assert response.status == 0x0111
    assert response.error_comment


def test_fragments_may_lie_anyhow(raw, settings):
    ds = synthetic.ct()
    command, data = request(ds), synthetic.data_set(ds)
    raw.send(
        pdata((CT_ID, COMMAND, command[:10]))
        + pdata((CT_ID, COMMAND, command[10:11]), (CT_ID, COMMAND, b""))
        + pdata((CT_ID, WHOLE_COMMAND, command[11:]), (CT_ID, 0, data[:1]), (CT_ID, 0, b""))
        + pdata((CT_ID, 0, data[1:]))
        + pdata((CT_ID, LAST, b""))
    )
    assert raw.response().status == 0
    assert _stored(settings)[0].read_bytes().endswith(data)


def test_one_byte_at_a_time(scp, settings):
    ds = synthetic.ct(rows=4, columns=4)
    command, data = request(ds), synthetic.data_set(ds)
    with RawPeer(scp) as peer:
        stream = peer.request() + pdata((CT_ID, WHOLE_COMMAND, command)) + pdata((CT_ID, 2, data))
        for n in range(len(stream)):
            peer.send(stream[n : n + 1])
        assert peer.receive()[0] == PDUType.ASSOCIATE_AC
        assert peer.response().status == 0
    assert _stored(settings)[0].read_bytes().endswith(data)


def test_a_peer_that_does_not_wait_for_responses_gets_all_in_order(raw):
    series = synthetic.ct_series(5)
    stream = b"".join(
        pdata((CT_ID, WHOLE_COMMAND, request(ds, n)), (CT_ID, LAST, synthetic.data_set(ds)))
        + pdata((ECHO_ID, WHOLE_COMMAND, echo_request(100 + n)))
        for n, ds in enumerate(series, 1)
    )
    raw.send(stream)
    answers = [raw.response() for _ in range(10)]
    assert [a.status for a in answers] == [0] * 10
    ids = [a.message_id_being_responded_to for a in answers]
    assert ids == [1, 101, 2, 102, 3, 103, 4, 104, 5, 105]


def test_the_limit_of_the_peer_is_honoured(scp):
    with RawPeer(scp) as peer:
        peer.associate(limit=40)
        peer.send(pdata((ECHO_ID, WHOLE_COMMAND, echo_request())))
        pdu_type, body = peer.receive()
        assert pdu_type == PDUType.P_DATA_TF
        assert len(body) <= 40


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"affected_sop_instance_uid": "1.2.3"}, 0xA900),
        ({"affected_sop_instance_uid": "../../etc"}, 0x0115),
        ({"affected_sop_instance_uid": None}, 0x0115),
        ({"affected_sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, 0x0122),
        ({"command_field": 0x0020}, 0x0211),
        ({"command_field": 0x0777}, 0x0211),
    ],
)
def test_what_is_refused_has_its_status_and_a_comment(raw, settings, changes, status):
    response = raw.store(synthetic.ct(), **changes)
    assert response.status == status
    assert 0 < len(response.error_comment) <= 64
    assert not _stored(settings)
    assert not _left_over(settings)
    assert raw.store(synthetic.ct()).status == 0, "the association goes on"


def _without(keyword: str) -> Any:
    ds = synthetic.ct()
    delattr(ds, keyword)
    return ds


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_data_set_without_its_study_or_series_is_not_understood(raw, settings, keyword):
    assert raw.store(_without(keyword)).status == 0xC000
    assert not _stored(settings)


def test_a_data_set_of_another_class_does_not_match(raw):
    ds = synthetic.ct()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    assert raw.store(ds, affected_sop_class_uid=CT).status == 0xA900


def test_a_data_set_that_ends_early_is_not_understood(raw, settings):
    ds = synthetic.ct()
    raw.send(pdata((CT_ID, WHOLE_COMMAND, request(ds))))
    raw.send(pdata((CT_ID, LAST, synthetic.data_set(ds)[:-7])))
    assert raw.response().status == 0xC000
    assert not _stored(settings)
    assert not _left_over(settings)


def test_store_without_a_data_set(raw):
    raw.send(pdata((CT_ID, WHOLE_COMMAND, request(synthetic.ct(), command_data_set_type=0x0101))))
    assert raw.response().status == 0xC000
    assert raw.echo().status == 0


def test_operations_in_the_wrong_context_are_not_recognised(raw):
    ds = synthetic.ct()
    assert raw.store(ds, context_id=ECHO_ID).status == 0x0211
    raw.send(pdata((CT_ID, WHOLE_COMMAND, echo_request())))
    assert raw.response().status == 0x0211


def test_cancel_is_passed_over(raw):
    cancel = Command(0x0FFF, message_id_being_responded_to=9)
    raw.send(pdata((CT_ID, WHOLE_COMMAND, encode_command_set(cancel))))
    assert raw.echo().status == 0


class _Broken:
    """A store that fails while it is written, or when it commits."""

    def __init__(self, store: Any, error: Exception, at: str) -> None:
        self._store, self._error, self._at = store, error, at

    def __getattr__(self, name: str) -> Any:
        if name == self._at:
            return self._raise
        return getattr(self._store, name)

    def _raise(self, *_: object, **__: object) -> Any:
        raise self._error


@pytest.mark.parametrize("at", ["receive", "commit"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfResources("no space left"), 0xA700),
        (Unavailable("the log does not answer"), 0xA700),
        (RuntimeError("secret detail"), 0x0110),
    ],
)
def test_failures_of_the_store_have_their_status(archive, settings, at, error, status):
    broken = replace(archive, store=_Broken(archive.store, error, at))
    with receiver(broken, settings.storescp) as scp, RawPeer(scp) as peer:
        peer.associate()
        response = peer.store(synthetic.ct())
        assert response.status == status
        assert "secret" not in (response.error_comment or "")
        assert peer.echo().status == 0


def test_the_called_ae_title_chooses_the_tenant(archive, settings):
    changed = settings.storescp.model_copy(update={"tenants": {"WADO_A": "tenant-a"}})
    with receiver(archive, changed) as scp:
        for called, tenant in (("WADO_A", "tenant-a"), ("ANY", "default")):
            with RawPeer(scp) as peer:
                peer.associate(called=called)
                assert peer.store(synthetic.ct()).status == 0
            assert len(_stored(settings, tenant)) == 1


def test_every_transfer_syntax_is_kept_as_proposed(scp, settings):
    series = synthetic.ct_series(len(synthetic.NATIVE_TRANSFER_SYNTAXES))
    for ds, syntax in zip(series, synthetic.NATIVE_TRANSFER_SYNTAXES, strict=True):
        encoded = synthetic.with_transfer_syntax(ds, syntax)
        with RawPeer(scp) as peer:
            accept = peer.associate([(VERIFICATION, "1.2.840.10008.1.2"), (CT, str(syntax))])
            assert accept.contexts[1].transfer_syntax == syntax
            assert peer.store(encoded).status == 0
        data = synthetic.data_set(encoded)
        assert any(path.read_bytes().endswith(data) for path in _stored(settings))


def test_a_large_data_set_passes_with_flat_memory(raw, settings):
    assert raw.store(synthetic.ct()).status == 0, "what the first one loads is not counted"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size, ds = 0, synthetic.ct(study="large")
    raw.send(pdata((CT_ID, WHOLE_COMMAND, request(ds))))
    del ds.PixelData
    head = synthetic.data_set(ds)
    head += b"\xe0\x7f\x10\x00OW\0\0" + (192 << 20).to_bytes(4, "little")
    raw.send(pdata((CT_ID, 0, head)))
    zeros = bytes(65536)
    while size < 192 << 20:
        size += len(zeros)
        raw.send(pdata((CT_ID, LAST if size == 192 << 20 else 0, zeros)))
    assert raw.response().status == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10
    assert max(path.stat().st_size for path in _stored(settings)) > 192 << 20


def test_explicit_is_the_context_under_test():
    assert synthetic.ct().file_meta.TransferSyntaxUID == EXPLICIT
