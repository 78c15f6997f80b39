"""The DIMSE receiver: C-ECHO and C-STORE as SCP."""

from wado.services.storescp.app import listen, run

__all__ = ["listen", "run"]
