"""Every way the archive can refuse or fail.

WadoError                        500  0110  processing failure
├── InvalidRequest               400  0115
│   ├── InvalidUID
│   └── MalformedPDU                              the bytes of an association break PS3.8
├── NotAuthorised                403  0124
├── NotFound                     404  0112
│   └── Gone                     410        it was deleted
├── NotAcceptable                406  C122  no representation in the asked form or transfer syntax
├── TooLarge                     413  A700
├── UnsupportedMediaType         415  C122
├── Refused                      409  0110  the instance is readable but not storable
│   ├── DuplicateInstance             0111  other bytes are stored under this SOP Instance UID
│   ├── DuplicateTransaction          0131  the transaction UID was used for another request
│   ├── SOPClassNotSupported          0122
│   ├── SOPClassMismatch              A900
│   └── CannotUnderstand              C000
│       └── CutShort                        work on pixels that crashed, or took too much
├── NotOffered                   501  0122  the Standard names it; this archive does not do it
├── OutOfResources               503  A700
├── Unavailable                  503  A700  a service we depend on does not answer; try again
│   └── Unreadable                          a stored file that the disk does not give
├── AssociationRejected          502  0110  a peer rejected our association
└── InvalidMessage               500  0110  a message that can never be processed
"""

from typing import ClassVar


class WadoError(Exception):
    """Base of all errors; a subclass names its HTTP and its DIMSE status (PS3.7 Annex C)."""

    http: ClassVar[int] = 500
    dimse: ClassVar[int] = 0x0110

    def __init_subclass__(cls, *, http: int | None = None, dimse: int | None = None) -> None:
        super().__init_subclass__()
        cls.http = cls.http if http is None else http
        cls.dimse = cls.dimse if dimse is None else dimse


class InvalidRequest(WadoError, http=400, dimse=0x0115):
    """The request breaks the protocol or a rule of the Standard."""


class InvalidUID(InvalidRequest):
    """Not a DICOM UID (PS3.5 §9)."""


class MalformedPDU(InvalidRequest):
    """The bytes of a DICOM association break PS3.8.

    Parameters
    ----------
    message
        What is wrong.
    reason
        Reason/Diag. of the A-ABORT that answers it (PS3.8 Table 9-26).
    """

    def __init__(self, message: str, reason: int = 6) -> None:
        super().__init__(message)
        self.reason = reason


class NotAuthorised(WadoError, http=403, dimse=0x0124):
    """The peer may not do this."""


class NotFound(WadoError, http=404, dimse=0x0112):
    """No such study, series, instance, frame or bulk data."""


class Gone(NotFound, http=410):
    """It was here, and was deleted (PS3.18 §8.5)."""


class NotAcceptable(WadoError, http=406, dimse=0xC122):
    """No representation in the asked media type or transfer syntax."""


class TooLarge(WadoError, http=413, dimse=0xA700):
    """The request is larger than a configured limit."""


class UnsupportedMediaType(WadoError, http=415, dimse=0xC122):
    """The body is of a media type that cannot be stored."""


class Refused(WadoError, http=409, dimse=0x0110):
    """The instance is readable but not storable."""


class DuplicateInstance(Refused, dimse=0x0111):
    """Other bytes are stored under this SOP Instance UID already."""


class DuplicateTransaction(Refused, dimse=0x0131):
    """The transaction UID of a storage commitment was used for another request."""


class SOPClassNotSupported(Refused, dimse=0x0122):
    """The SOP class is not one that this archive stores."""


class SOPClassMismatch(Refused, dimse=0xA900):
    """The data set does not match the SOP class or instance announced for it."""


class CannotUnderstand(Refused, dimse=0xC000):
    """The data set cannot be read: no identifying attributes, or it ends early."""


class CutShort(CannotUnderstand):
    """The process that worked on pixels crashed, took too long or too much memory.

    It says less of the data than another `CannotUnderstand`: at another time it may pass.
    """


class NotOffered(WadoError, http=501, dimse=0x0122):
    """A service or option that the Standard names and this archive does not offer."""


class OutOfResources(WadoError, http=503, dimse=0xA700):
    """No space, or a limit of this installation is reached."""


class Unavailable(WadoError, http=503, dimse=0xA700):
    """A service we depend on does not answer; trying again may help."""


class Unreadable(Unavailable):
    """A stored file can't be read now, by a damaged disk for example; others perhaps can."""


class AssociationRejected(WadoError, http=502):
    """A peer rejected our association: for now when `is_transient`, else for good."""

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class InvalidMessage(WadoError):
    """A message that can never be processed; it belongs in the dead-letter queue."""
