"""Write the configuration of nginx, the proxy before several servers and receivers.

What it does, and why, is told in docs/operations/nginx.md. Names and paths are taken over as they
are: the settings refuse what would need quoting there.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from wado.errors import InvalidRequest
from wado.nginx_settings import NginxSettings
from wado.profile import default_urls
from wado.settings import Settings

_HEADING: Final = "# Written by `wado deploy nginx` from the settings: change those."
_API: Final = (
    *("dicomweb", "wado", "livez", "readyz", "openapi\\.json", "docs"),
    "statistics/transcoding",
)
"""First parts of paths that are no pages of the viewer."""
_HASHED: Final = '"~/assets/.*[-.][A-Za-z0-9_-]{8,}\\.\\w+$"'
_FILE_NAME: Final = "/.*\\.[A-Za-z]\\w{0,9}"
_CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_PASSED_ON: Final = (
    "ETag",
    "Vary",
    "Warning",
    "Content-Encoding",
    "Content-Location",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
    "Cross-Origin-Resource-Policy",
)
"""Headers of a server's answer that nginx would drop when it takes over the file."""
_RENAMED: Final = ("Accept-Ranges", "Cache-Control", "Content-Disposition")
"""Likewise; the server sends them as ``X-Left-…``, or nginx would keep them for what follows."""
_TYPES: Final = {
    "text/html": "html",
    "text/css": "css",
    "text/javascript": "js mjs",
    "text/plain": "txt",
    "application/json": "json map",
    "application/wasm": "wasm",
    "application/manifest+json": "webmanifest",
    "font/woff2": "woff2",
    "image/png": "png",
    "image/jpeg": "jpg jpeg",
    "image/svg+xml": "svg",
    "image/vnd.microsoft.icon": "ico",
}
_TO_QUOTE: Final = re.compile(r"[\s\"'`$;{}\\#*]")
_KEEPALIVE_S: Final = 10
"""Shorter than the server keeps an idle connection, or a request may meet its end."""


@dataclass(frozen=True, slots=True)
class _Block:
    head: str
    body: "Sequence[_Line]"


_Line = str | _Block


def nginx_configuration(settings: Settings) -> str:
    """Write a whole configuration, for nginx 1.22 and newer.

    Raises
    ------
    InvalidRequest
        TLS is asked for without a certificate, a path can't be written, or nothing is listened to.
    """
    _check(settings)
    nginx = settings.nginx
    blocks: list[_Line] = [*_main(nginx)]
    if nginx.http_listen or nginx.https_listen:
        blocks.append(_Block("http", [*_http(settings)]))
    if nginx.dimse_listen or nginx.dimse_tls_listen:
        blocks.append(_Block("stream", [*_stream(settings)]))
    return "\n".join([_HEADING, *_written(blocks, "")]) + "\n"


def _check(settings: Settings) -> None:
    nginx = settings.nginx
    ends_tls = nginx.https_listen or (nginx.dimse_tls_listen and not nginx.dimse_tls_names)
    if ends_tls and not (nginx.certificate and nginx.certificate_key):
        raise InvalidRequest("TLS needs nginx.certificate and nginx.certificate_key")
    if not any((nginx.http_listen, nginx.https_listen, nginx.dimse_listen, nginx.dimse_tls_listen)):
        raise InvalidRequest("nginx would listen nowhere: set nginx.http_listen or another")
    folder = _files_folder(settings)
    if settings.server.x_accel_location and _TO_QUOTE.search(folder):
        raise InvalidRequest(f"the folder of the images can't be written for nginx: {folder!r}")


def _files_folder(settings: Settings) -> str:
    """Folder of the images; empty if they are not files."""
    url = urlsplit(default_urls(settings)["store"])
    return "/" + unquote(url.path).strip("/") if url.scheme == "file" else ""


def _written(lines: Iterable[_Line], indent: str) -> Iterator[str]:
    for line in lines:
        if isinstance(line, str):
            yield f"{indent}{line}" if line.startswith("#") else f"{indent}{line};"
        else:
            yield f"{indent}{line.head} {{"
            yield from _written(line.body, indent + "    ")
            yield f"{indent}}}"


# ------------------------------------------------------------------ the process


def _main(nginx: NginxSettings) -> Iterator[_Line]:
    folder = nginx.run_folder.rstrip("/")
    if nginx.user:
        yield f"user {nginx.user}"
    yield f"worker_processes {nginx.workers or 'auto'}"
    yield "worker_rlimit_nofile 65536"
    yield f"pid {folder}/nginx.pid" if folder else "pid /run/nginx.pid"
    yield f"error_log {_log(nginx, 'error')} warn"
    if nginx.modules:
        yield f"include {nginx.modules}"
    yield _Block("events", ["worker_connections 8192"])


def _log(nginx: NginxSettings, name: str) -> str:
    return f"{nginx.run_folder.rstrip('/') or '/var/log/nginx'}/{name}.log"


def _tls(nginx: NginxSettings, cache: str) -> Iterator[str]:
    yield f"ssl_certificate {nginx.certificate}"
    yield f"ssl_certificate_key {nginx.certificate_key}"
    yield "ssl_protocols TLSv1.2 TLSv1.3"
    yield f"ssl_ciphers {_CIPHERS}"
    yield "ssl_prefer_server_ciphers off"
    yield f"ssl_session_cache shared:{cache}:10m"
    yield "ssl_session_timeout 1d"
    yield "ssl_session_tickets off"


def _upstream(name: str, addresses: Iterable[str], *more: str) -> _Block:
    servers = [f"server {address} max_fails=2 fail_timeout=5s" for address in addresses]
    return _Block(f"upstream {name}", [f"zone {name} 128k", "least_conn", *servers, *more])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ------------------------------------------------------------------ HTTP


def _http(settings: Settings) -> Iterator[_Line]:
    nginx, server = settings.nginx, settings.server
    servers = nginx.servers or (_address(server.host, server.port),)
    yield from _general(nginx)
    yield from _clients(nginx)
    yield _upstream("wado_servers", servers, "keepalive 64", f"keepalive_timeout {_KEEPALIVE_S}s")
    names = " ".join(nginx.server_names) or "_"
    listens = [f"listen {nginx.http_listen}"] if nginx.http_listen else []
    if nginx.https_listen:
        if nginx.http_listen:
            port = nginx.https_listen.rpartition(":")[2]
            place = "$host" if port == "443" else f"$host:{port}"
            to_https = f"return 308 https://{place}$request_uri"
            yield _Block("server", [*listens, f"server_name {names}", to_https])
        # From 1.25.1 on, `http2 on` is the way to say it; this one is still understood.
        tls = _tls(nginx, "wado_https")
        listens = [f"listen {nginx.https_listen} ssl http2", *tls]
    yield _Block("server", [*listens, f"server_name {names}", *_locations(settings)])


def _general(nginx: NginxSettings) -> Iterator[_Line]:
    yield _Block("types", [f"{name} {endings}" for name, endings in _TYPES.items()])
    yield "default_type application/octet-stream"
    yield "charset utf-8"
    yield "charset_types text/css text/javascript text/plain"
    yield (
        'log_format wado escape=json \'$time_iso8601 $remote_addr $request_method "$uri" $status '
        "$body_bytes_sent $request_time $upstream_addr $upstream_status'"
    )
    yield f"access_log {_log(nginx, 'access')} wado"
    if nginx.run_folder:
        folder = nginx.run_folder.rstrip("/")
        yield from (f"{name}_temp_path {folder}/{name}" for name in ("client_body", "proxy"))
    yield "server_tokens off"
    yield "sendfile on"
    yield "tcp_nopush on"
    yield "reset_timedout_connection on"
    yield "# A search may name many UIDs."
    yield "large_client_header_buffers 8 64k"
    yield "client_header_timeout 15s"
    yield "client_body_timeout 60s"
    yield "send_timeout 60s"
    yield "# Studies have no fixed size: they go on as they come, and are never kept here."
    yield "client_max_body_size 0"
    yield "client_body_buffer_size 256k"
    yield "proxy_request_buffering off"
    yield "proxy_buffering on"
    yield "proxy_buffer_size 16k"
    yield "proxy_buffers 8 64k"
    yield "proxy_busy_buffers_size 128k"
    yield "proxy_max_temp_file_size 0"
    yield "proxy_http_version 1.1"
    yield "proxy_connect_timeout 3s"
    yield f"proxy_read_timeout {nginx.transfer_timeout_s}s"
    yield f"proxy_send_timeout {nginx.transfer_timeout_s}s"
    yield "# Without `non_idempotent`: a POST goes to another server only before it was begun."
    yield "proxy_next_upstream error timeout"
    yield "proxy_next_upstream_tries 3"
    yield "proxy_next_upstream_timeout 15s"


def _clients(nginx: NginxSettings) -> Iterator[_Line]:
    """Find out who asks, and how; only proxies that are named may say so for others."""
    yield _Block("map $http_host $wado_host", ['"" $host', "default $http_host"])
    yield _Block(
        "map $uri $wado_caching",
        [f'{_HASHED} "public, max-age=31536000, immutable"', "default no-cache"],
    )
    if not nginx.proxies:
        yield _Block("map $scheme $wado_scheme", ["default $scheme"])
        return
    yield from (f"set_real_ip_from {network}" for network in nginx.proxies)
    yield "real_ip_header X-Forwarded-For"
    yield "real_ip_recursive on"
    known = [f"{network} 1" for network in nginx.proxies]
    yield _Block("geo $realip_remote_addr $wado_is_proxied", ["default 0", *known])
    yield _Block(
        "map $wado_is_proxied:$http_x_forwarded_proto $wado_scheme",
        ["1:https https", "1:http http", "default $scheme"],
    )


def _asked(*, files: bool) -> Iterator[_Line]:
    """Say who asks; whatever a client says of that itself does not go on."""
    yield "proxy_set_header Host $wado_host"
    yield 'proxy_set_header Connection ""'
    yield "proxy_set_header X-Forwarded-For $remote_addr"
    yield "proxy_set_header X-Forwarded-Proto $wado_scheme"
    for name in ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"):
        yield f'proxy_set_header {name} ""'
    who_sends = "X-Accel-Redirect" if files else '""'
    yield f"proxy_set_header X-Sendfile-Type {who_sends}"


def _locations(settings: Settings) -> Iterator[_Line]:
    nginx, server = settings.nginx, settings.server
    prefix = _prefix(settings)
    to_server = "proxy_pass http://wado_servers"
    hsts = f"Strict-Transport-Security max-age={nginx.hsts_s}"
    always = [f"add_header {hsts} always"] if nginx.hsts_s and nginx.https_listen else []
    yield from always
    yield from _asked(files=bool(server.x_accel_location and _files_folder(settings)))
    yield "error_page 502 504 = @away"
    allowed = [f"allow {network}" for network in nginx.metrics_from]
    yield _Block(f"location = {prefix}/metrics", [*allowed, "deny all", to_server])
    if nginx.static_folder:
        yield _Block(f'location ~ "^{prefix}/({"|".join(_API)})(/|$)"', [to_server])
        yield from _viewer(nginx.static_folder.rstrip("/"), prefix, always)
    else:
        yield _Block("location /", [to_server])
    if server.x_accel_location and _files_folder(settings):
        yield from _files(settings, always)
    nobody = '{"status":503,"reason":"no server answers now: try again"}'
    retry = ["add_header Retry-After 5 always", "add_header Cache-Control no-store always"]
    yield _Block(
        "location @away",
        [*always, *retry, "default_type application/json", f"return 503 '{nobody}'"],
    )


def _prefix(settings: Settings) -> str:
    """Path before ours in requests, which nginx leaves on; empty if there is none."""
    return (settings.server.root_path or urlsplit(settings.server.public_url).path).rstrip("/")


def _viewer(folder: str, prefix: str, always: Sequence[str]) -> Iterator[_Line]:
    """Serve the viewer: files by their names; all other paths are pages of it."""
    headers = [
        *always,
        "add_header Cache-Control $wado_caching",
        "add_header X-Content-Type-Options nosniff",
        "add_header Referrer-Policy same-origin",
        "gzip_static on",
        "gzip_vary on",
        "gzip_proxied any",
    ]
    yield _Block(f'location ~ "^{prefix}({_FILE_NAME})$"', [f"alias {folder}$1", *headers])
    place = f"alias {folder}/" if prefix else f"root {folder}"
    page = f"try_files $uri {prefix}/index.html"
    yield _Block(f"location {prefix}/", [place, *headers, page])
    if prefix:
        yield _Block(f"location = {prefix}", [f"return 308 {prefix}/"])
        yield _Block("location /", ["proxy_pass http://wado_servers"])


def _files(settings: Settings, always: Sequence[str]) -> Iterator[_Line]:
    """Send files that a server leaves to nginx, with the headers of its answer.

    What nginx can't find or read, the server is asked to send itself.
    """
    location = settings.server.x_accel_location
    passed_on = [
        f"add_header {name} $upstream_http_{name.lower().replace('-', '_')} always"
        for name in _PASSED_ON
    ]
    passed_on += [
        f"add_header {name} $upstream_http_x_left_{name.lower().replace('-', '_')}"
        for name in _RENAMED
    ]
    yield _Block(
        f"location ^~ {location}/",
        [
            "internal",
            f"alias {_files_folder(settings)}/",
            "etag off",
            "if_modified_since off",
            'add_header Last-Modified ""',
            "max_ranges 1",
            "charset off",
            *always,
            *passed_on,
            "error_page 403 404 = @from_server",
        ],
    )
    yield _Block(
        "location @from_server",
        [
            *_asked(files=False),
            "recursive_error_pages on",
            "proxy_pass http://wado_servers$request_uri",
        ],
    )


# ------------------------------------------------------------------ DICOM


def _stream(settings: Settings) -> Iterator[_Line]:
    nginx, storescp = settings.nginx, settings.storescp
    receivers = nginx.storescps or (_address(storescp.host, storescp.port),)
    yield (
        "log_format wado '$time_iso8601 $remote_addr $server_port $status $bytes_received "
        "$bytes_sent $session_time $upstream_addr'"
    )
    yield f"access_log {_log(nginx, 'dicom')} wado"
    yield "proxy_connect_timeout 3s"
    yield f"proxy_timeout {nginx.dimse_timeout_s}s"
    yield "proxy_socket_keepalive on"
    yield "proxy_buffer_size 64k"
    if storescp.proxy_protocol_from:
        yield "proxy_protocol on"
    yield _upstream("wado_storescps", receivers)
    if nginx.dimse_listen:
        listen = f"listen {nginx.dimse_listen} so_keepalive=on"
        yield _Block("server", [listen, "proxy_pass wado_storescps"])
    if nginx.dimse_tls_names:
        yield from _by_name(nginx)
    elif nginx.dimse_tls_listen:
        yield _Block("server", [*_dicom_tls(nginx), "proxy_pass wado_storescps"])


def _dicom_tls(nginx: NginxSettings) -> Iterator[_Line]:
    yield f"listen {nginx.dimse_tls_listen} ssl so_keepalive=on"
    yield from _tls(nginx, "wado_dicom")
    yield "ssl_handshake_timeout 15s"
    if nginx.dimse_client_ca:
        yield f"ssl_client_certificate {nginx.dimse_client_ca}"
        yield "ssl_verify_client on"


def _by_name(nginx: NginxSettings) -> Iterator[_Line]:
    """Hand TLS on as it comes, to the receiver whose name the client asks for (SNI)."""
    chosen = []
    for number, (name, addresses) in enumerate(nginx.dimse_tls_names.items(), 1):
        chosen.append(f"{name} wado_tls_{number}")
        yield _upstream(f"wado_tls_{number}", addresses)
    yield _Block("map $ssl_preread_server_name $wado_receiver", ["hostnames", *chosen])
    listen = f"listen {nginx.dimse_tls_listen} so_keepalive=on"
    yield _Block(
        "server",
        [listen, "ssl_preread on", "preread_timeout 15s", "proxy_pass $wado_receiver"],
    )
