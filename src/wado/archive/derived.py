"""Derived copies: an original in another transfer syntax, made beforehand, kept beside it.

What there is of an instance stands in the journal of its series, as lines behind its own. They
count only for the original that they were made from: one that is replaced has no copies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from wado.dicom.frames import PixelData


@dataclass(frozen=True, slots=True)
class Copy:
    """A derived copy of an instance, verified before it was announced.

    Attributes
    ----------
    transfer_syntax_uid
        Of the copy; an instance has one copy in each at most.
    file_size
        Of its file at `wado.archive.paths.derived_path`, in bytes.
    digest
        SHA-256 of that file as hex digits.
    pixel
        Where its Pixel Data and frames are.
    photometric_interpretation
        Of its pixels, which may differ from that of the original; they lie colour by pixel.
    lossy
        Its pixels differ from those of the original: nobody gets it without asking for it.
    instead_of
        The transfer syntax that was asked for, where the image does not fit it.
    """

    transfer_syntax_uid: str
    file_size: int
    digest: str
    pixel: PixelData
    photometric_interpretation: str = ""
    lossy: bool = False
    instead_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the form in which a journal keeps it."""
        return {
            "transfer_syntax_uid": self.transfer_syntax_uid,
            "file_size": self.file_size,
            "digest": self.digest,
            "pixel": self.pixel.to_json(),
            "photometric_interpretation": self.photometric_interpretation,
            "lossy": self.lossy,
            **({"instead_of": self.instead_of} if self.instead_of else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` made."""
        return cls(**{**value, "pixel": PixelData.from_json(value["pixel"])})


@dataclass(frozen=True, slots=True)
class Derived:
    """What was derived from an instance, and what could not be.

    `copies` and `failures` (why not) are by transfer syntax; neither holds what the other has.
    `line_bytes` are the lengths of the lines that say so.
    """

    copies: Mapping[str, Copy]
    failures: Mapping[str, str]
    line_bytes: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def having(self, value: Mapping[str, Any], length: int) -> "Derived":
        """What there is once a line of a journal is read, too, which is `length` bytes long."""
        copies, failures = dict(self.copies), dict(self.failures)
        line_bytes = dict(self.line_bytes)
        uid = value["transfer_syntax_uid"]
        for known in (copies, failures, line_bytes):
            known.pop(uid, None)
        if value.get("copy"):
            copies[uid] = Copy.from_json(value["copy"])
        elif value.get("reason"):
            failures[uid] = value["reason"]
        else:
            return Derived(copies, failures, line_bytes)
        return Derived(copies, failures, {**line_bytes, uid: length})


NOTHING = Derived({}, {})


def copy_line(sop_instance_uid: str, digest: str, copy: Copy) -> bytes:
    """Make the line that announces a copy of the original with this digest."""
    value = {"derived": sop_instance_uid, "digest": digest, "copy": copy.to_json()}
    return _line(value, copy.transfer_syntax_uid)


def failure_line(sop_instance_uid: str, digest: str, target_uid: str, reason: str) -> bytes:
    """Make the line that says why there is no copy; without reason, that it is forgotten."""
    return _line({"derived": sop_instance_uid, "digest": digest, "reason": reason}, target_uid)


def derived_lines(sop_instance_uid: str, digest: str, derived: Derived) -> bytes:
    """Make all lines of an instance anew, for a journal that is compacted."""
    lines = [copy_line(sop_instance_uid, digest, copy) for copy in derived.copies.values()]
    lines += [
        failure_line(sop_instance_uid, digest, uid, reason)
        for uid, reason in derived.failures.items()
    ]
    return b"".join(lines)


def _line(value: dict[str, Any], target_uid: str) -> bytes:
    return orjson.dumps({**value, "transfer_syntax_uid": target_uid}) + b"\t\n"
