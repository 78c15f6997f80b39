"""Cuts the bytes of an association into PDUs and fragments, in place (PS3.8 §9.3.1, §9.3.5).

Nothing is copied or collected here, except that an association PDU is handed on whole: a fragment
of P-DATA-TF goes on piece by piece, as the bytes come from the socket.
"""

from typing import Protocol

from wado.dicom.pdu import HEADER, PDV_HEADER, AbortReason, PDUType
from wado.errors import MalformedPDU

MAX_ASSOCIATE_BYTES = 1 << 18
"""Longest PDU that is not P-DATA-TF; 128 contexts with every transfer syntax take half of it."""
_SLACK = 256
"""Some peers count their own headers into the limit, or not."""
_PDU_TYPES = frozenset(PDUType)


class Receiver(Protocol):
    """Takes what `Framing` finds."""

    def expect_pdu(self, pdu_type: PDUType) -> None:
        """See a PDU begin; raises MalformedPDU when it may not come now."""
        ...

    def take_pdu(self, pdu_type: PDUType, body: bytes) -> None:
        """Take a whole PDU that is not P-DATA-TF."""
        ...

    def take_fragment(self, context_id: int, control: int, piece: memoryview, left: int) -> None:
        """Take a piece of a fragment, valid during the call; `left` bytes of it are to come."""
        ...


class Framing:
    """State of the cutting between two reads.

    Set `held` to make `feed` stop behind the piece in hand: what follows waits in the buffer.
    """

    __slots__ = (
        "_context_id",
        "_control",
        "_limit",
        "_pdu_left",
        "_pdv_left",
        "_receiver",
        "held",
        "pdu_count",
    )

    def __init__(self, receiver: Receiver, max_pdu_bytes: int) -> None:
        self._receiver = receiver
        self._limit = max_pdu_bytes + _SLACK
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0
        self.held = False
        self.pdu_count = 0

    @property
    def is_inside(self) -> bool:
        """Whether a P-DATA-TF has begun and is not whole."""
        return self._pdu_left > 0

    def feed(self, data: memoryview) -> int:
        """Take what can be taken, in order.

        Returns
        -------
        used
            Bytes that need not be offered again: all, but for a header or an association PDU
            that is not whole, and what lies behind a piece after which `held` was set.

        Raises
        ------
        MalformedPDU
            The bytes break PS3.8; the association can't go on.
        """
        used, end = 0, len(data)
        while used < end and not self.held:
            if self._pdv_left:
                taken = self._take_piece(data, used, end)
            elif self._pdu_left:
                taken = self._begin_fragment(data, used, end)
            else:
                taken = self._begin_pdu(data, used, end)
            if not taken:
                break
            used += taken
        return used

    def _take_piece(self, data: memoryview, used: int, end: int) -> int:
        taken = min(self._pdv_left, end - used)
        self._pdv_left -= taken
        self._pdu_left -= taken
        piece = data[used : used + taken]
        self._receiver.take_fragment(self._context_id, self._control, piece, self._pdv_left)
        return taken

    def _begin_fragment(self, data: memoryview, used: int, end: int) -> int:
        if self._pdu_left < PDV_HEADER.size:
            raise MalformedPDU("P-DATA-TF ends within the header of a fragment")
        if end - used < PDV_HEADER.size:
            return 0
        length, self._context_id, self._control = PDV_HEADER.unpack_from(data, used)
        if length < 2 or length + 4 > self._pdu_left:
            raise MalformedPDU("fragment is longer than its P-DATA-TF")
        self._pdu_left -= PDV_HEADER.size
        self._pdv_left = length - 2
        if not self._pdv_left:  # an empty last fragment ends a data set that was sent before
            self._receiver.take_fragment(self._context_id, self._control, data[used:used], 0)
        return PDV_HEADER.size

    def _begin_pdu(self, data: memoryview, used: int, end: int) -> int:
        if data[used] not in _PDU_TYPES:  # seen in the first byte: no need to wait for the rest
            raise MalformedPDU(f"unknown PDU type {data[used]:02X}H", AbortReason.UNRECOGNIZED_PDU)
        pdu_type = PDUType(data[used])
        self._receiver.expect_pdu(pdu_type)
        if end - used < HEADER.size:
            return 0
        length = int.from_bytes(data[used + 2 : used + HEADER.size], "big")
        if pdu_type is PDUType.P_DATA_TF:
            return self._begin_data(length)
        if length > MAX_ASSOCIATE_BYTES - HEADER.size:
            raise MalformedPDU(f"PDU of {length} bytes is too long")
        whole = HEADER.size + length
        if end - used < whole:
            return 0
        self.pdu_count += 1
        self._receiver.take_pdu(pdu_type, bytes(data[used + HEADER.size : used + whole]))
        return whole

    def _begin_data(self, length: int) -> int:
        if length > self._limit:
            raise MalformedPDU(f"P-DATA-TF of {length} bytes is longer than agreed")
        if not length:
            raise MalformedPDU("P-DATA-TF without a fragment")
        self.pdu_count += 1
        self._pdu_left = length
        return HEADER.size
