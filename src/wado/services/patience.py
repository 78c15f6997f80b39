"""Back-off of the loops that read the log: what is down is waited for, visibly."""

from threading import Event

from wado import vitals
from wado.errors import WadoError
from wado.telemetry import get_logger

_FIRST_BACK_OFF_S = 0.2
_LONGEST_BACK_OFF_S = 10.0


class Patience:
    """Back-off, logged: a service that is down is waited for.

    Parameters
    ----------
    service
        Under which name it is logged.
    what
        What waits.
    stop
        Ends each wait.
    """

    def __init__(self, service: str, what: str, stop: Event) -> None:
        self._log = get_logger(service)
        self._what = what
        self._stop = stop
        self._delay_s = 0.0

    def wait(self, e: WadoError) -> None:
        """Wait, each time for longer, until something works again."""
        self._delay_s = min(max(self._delay_s * 2, _FIRST_BACK_OFF_S), _LONGEST_BACK_OFF_S)
        self._log.warning("waiting", doing=self._what, reason=str(e), retry_in_s=self._delay_s)
        vitals.count("wado_waits")
        self._stop.wait(self._delay_s)

    def reset(self) -> None:
        """Say that it works; the next wait is a short one."""
        if self._delay_s:
            self._log.info("working again", doing=self._what)
        self._delay_s = 0.0
