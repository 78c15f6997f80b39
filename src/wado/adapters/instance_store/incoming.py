"""A file on its way in, under a temporary name."""

import os
from collections.abc import Sequence
from contextlib import suppress

from wado.adapters.instance_store.posix import failure, translated
from wado.dicom.uids import InstanceRef


class IncomingFile:
    """A file under a temporary name."""

    __slots__ = ("_fd", "ref", "size", "temporary")

    def __init__(self, fd: int, temporary: str, ref: InstanceRef | None) -> None:
        self._fd = fd
        self.temporary = temporary
        self.ref = ref
        self.size = 0

    def write(self, data: Sequence[bytes | memoryview]) -> None:
        """Append the pieces in order."""
        try:
            written = os.writev(self._fd, data)
        except OSError as e:
            raise failure(e, "writing an incoming file") from e
        expected = sum(map(len, data))
        self.size += written
        if written != expected:  # a short write: rare (signals, nearly full disk), finish slowly
            rest = b"".join(data)[written:]
            while rest:
                with translated("writing an incoming file"):
                    written = os.write(self._fd, rest)
                self.size += written
                rest = rest[written:]

    def sync(self) -> None:
        """Flush the data to the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor; harmless when done before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def abort(self) -> None:
        """Close and remove."""
        if self._fd >= 0:
            self.close()
            with suppress(OSError):
                os.unlink(self.temporary)
