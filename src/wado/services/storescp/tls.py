"""TLS of the receiver (PS3.15 §B): our certificate, and whose certificates we ask for."""

import ssl

from wado.errors import InvalidRequest
from wado.settings import StorescpSettings


def tls_context(settings: StorescpSettings) -> ssl.SSLContext | None:
    """Make what TLS needs; None where the receiver speaks without it.

    Raises
    ------
    InvalidRequest
        A file can't be read, or is no certificate or key.
    """
    if not settings.tls_certificate:
        if settings.tls_client_ca:
            raise InvalidRequest("storescp.tls_client_ca needs storescp.tls_certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_certificate_key or None)
        if settings.tls_client_ca:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as e:  # SSLError is an OSError
        raise InvalidRequest(f"TLS of storescp: {e.strerror or e}") from e
    return context
