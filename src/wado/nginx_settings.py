"""Settings of nginx, which stands before several servers and receivers: see `wado.nginx`."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_ADDRESS = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
Address = Annotated[str, Field(pattern=f"^{_ADDRESS}$")]
"""HOST:PORT."""
_NO_ADDRESS = f"^({_ADDRESS})?$"
_PLAIN_PATH = r"^[^\s\"'`$;{}\\#*]*$"
"""A path that needs no quoting in the configuration of another program."""
HostName = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9._-]+$")]
Network = IPv4Network | IPv6Network


class NginxSettings(BaseModel):
    """What `wado deploy nginx` writes a configuration for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    http_listen: str = Field(
        "0.0.0.0:80",
        pattern=_NO_ADDRESS,
        description="HOST:PORT of plain HTTP, which leads to HTTPS if that is there; empty: none.",
    )
    https_listen: str = Field(
        "", pattern=_NO_ADDRESS, description="HOST:PORT of HTTPS and HTTP/2; empty: none."
    )
    server_names: tuple[HostName, ...] = Field(
        (), description="Names of the web server; empty: any."
    )
    certificate: str = Field(
        "", pattern=_PLAIN_PATH, description="File of the certificate and its chain (PEM)."
    )
    certificate_key: str = Field(
        "", pattern=_PLAIN_PATH, description="File of the certificate's private key (PEM)."
    )
    hsts_s: int = Field(
        0, ge=0, description="Seconds for which browsers shall use HTTPS only (HSTS); 0: unsaid."
    )
    servers: tuple[Address, ...] = Field(
        (), description="HOST:PORT of each wado-server; empty: that of `[server]`."
    )
    proxies: tuple[Network, ...] = Field(
        (),
        description="Networks of proxies before nginx whose `X-Forwarded-For` is believed.",
    )
    metrics_from: tuple[Network, ...] = Field(
        (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        description="Networks that may ask for `/metrics` through nginx.",
    )
    static_folder: str = Field(
        "",
        pattern=_PLAIN_PATH,
        description="Folder of the built viewer, served by nginx; empty: by wado-server.",
    )
    transfer_timeout_s: int = Field(
        300, ge=1, description="Seconds without a byte from wado-server after which we give up."
    )
    dimse_listen: str = Field(
        "0.0.0.0:104", pattern=_NO_ADDRESS, description="HOST:PORT of DICOM; empty: none."
    )
    dimse_tls_listen: str = Field(
        "", pattern=_NO_ADDRESS, description="HOST:PORT of DICOM over TLS; empty: none."
    )
    dimse_tls_names: dict[HostName, tuple[Address, ...]] = Field(
        default_factory=dict,
        description="Names (SNI) to the receivers, HOST:PORT each, that end TLS for them; "
        "connections that name none of these are closed. Empty: nginx ends TLS itself.",
    )
    dimse_client_ca: str = Field(
        "",
        pattern=_PLAIN_PATH,
        description="File of the authorities (PEM) of which DICOM clients need a certificate "
        "where nginx ends TLS; empty: they need none.",
    )
    storescps: tuple[Address, ...] = Field(
        (), description="HOST:PORT of each wado-storescp; empty: that of `[storescp]`."
    )
    dimse_timeout_s: int = Field(
        3600, ge=1, description="Seconds without a byte after which an association is closed."
    )
    modules: str = Field(
        "/etc/nginx/modules-enabled/*.conf",
        pattern=r"^[A-Za-z0-9/._*-]*$",
        description="Files that load modules; there need be none where `stream` is built in.",
    )
    workers: int = Field(0, ge=0, le=1024, description="Worker processes; 0: one for each core.")
    user: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*( [A-Za-z0-9._-]+)?$",
        description="User (and group) of the worker processes, who must be able to read the "
        "storage root if `server.x_accel_location` is set; empty: as nginx was built.",
    )
    run_folder: str = Field(
        "",
        pattern=_PLAIN_PATH,
        description="Folder of nginx's pid, logs and temporary files; empty: the usual places.",
    )
