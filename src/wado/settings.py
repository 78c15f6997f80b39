"""Every setting: typed, with a unit in its name, a default that works on one machine.

Read from the environment (``WADO_STORAGE__DURABILITY=os``) over one TOML file (``wado.toml``).
"""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wado.nginx_settings import NginxSettings
from wado.transcode_settings import TranscodeSettings

Port = Annotated[int, Field(ge=0, le=65535)]
Network = IPv4Network | IPv6Network
LoadedTable = Literal[
    "dicom_object_meta",
    "dicom_state_meta",
    "dicom_image_meta",
    "wado_access_log",
    "dicom_transcode_log",
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Section):
    """Where the files are, and how safe."""

    root: Path = Field(Path("data"), description="Folder below which everything is written.")
    url: str = Field(
        "",
        description="Where the images are: `s3://bucket/prefix`, or a shared folder "
        "(`file:///archive`). Empty: files below `root`.",
    )
    s3_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#@]+/?)?$",
        description="Address of S3 (`https://s3.example.org`); empty: that of AWS, or "
        "`AWS_ENDPOINT_URL`.",
    )
    s3_region: str = Field("", description="Region; empty: `AWS_REGION`, or us-east-1.")
    s3_path_style: bool = Field(
        default=True, description="The bucket stands in the path of addresses, else in the host."
    )
    s3_allow_http: bool = Field(
        default=False, description="Speak to S3 without TLS too: anybody may read and change it."
    )
    s3_access_key_id_file: Path | None = Field(
        None, description="File that holds the access key id; none: the usual `AWS_…` variables."
    )
    s3_secret_access_key_file: Path | None = Field(
        None, description="File that holds the secret access key."
    )
    s3_ca_file: Path | None = Field(
        None, description="Authorities (PEM) that are trusted beside the system's, for S3."
    )
    s3_timeout_s: float = Field(
        10.0, ge=1, le=300, description="Seconds within which S3 must answer a request."
    )
    s3_conditional_copy: str = Field(
        "multipart",
        pattern=r"^(multipart|header(-with-status)?:[^\s]+)$",
        description="How S3 copies only to where nothing is: `multipart`, or the header of those "
        "that have one (`header:cf-copy-destination-if-none-match:*`).",
    )
    durability: Literal["fsync", "os"] = Field(
        "fsync",
        description="`fsync`: success is answered once the disk has the file; "
        "`os`: once the operating system has it (a power cut can lose it).",
    )
    duplicates: Literal["keep", "replace"] = Field(
        "keep",
        description="Other bytes under a SOP Instance UID that is stored: `keep` the first and "
        "refuse the second, or `replace` it.",
    )
    unknown_sop_classes: bool = Field(
        default=False, description="Also store SOP classes that the Standard does not list."
    )
    default_tenant: str = Field(
        "default", description="Tenant of peers for which no other is configured."
    )
    deleted_keep_s: float = Field(
        7 * 86400.0,
        ge=0,
        description="Seconds for which deleted instances can be restored; then they are purged.",
    )
    commitments_keep_s: float = Field(
        30 * 86400.0,
        gt=0,
        description="Seconds for which the results of storage commitments can be asked for.",
    )


class LogSettings(_Section):
    """The message log."""

    url: str = Field(
        "",
        description="Empty: `sqlite:///<root>/log`. Or Kafka: "
        "`kafka://[USER:PASSWORD@]HOST:PORT,HOST:PORT[/PREFIX]`; archives that share a cluster "
        "need different prefixes of topics and groups.",
    )
    partitions: int = Field(
        0,
        ge=0,
        description="Partitions of each topic, set when it is made. 0: 1 in SQLite, 12 in Kafka.",
    )
    retention_s: float = Field(
        3600.0, ge=0, description="Seconds for which messages are kept that everyone has read."
    )
    replication_factor: int = Field(
        3, ge=1, description="Brokers of Kafka that have each message, set when a topic is made."
    )
    min_in_sync_replicas: int = Field(
        2,
        ge=1,
        description="Brokers of Kafka that must have a message before it counts as published, set "
        "when a topic is made.",
    )
    publish_timeout_s: float = Field(
        10.0,
        gt=0,
        le=120,
        description="Seconds after which a message that Kafka did not take is given up; when no "
        "broker answers at all, that takes 3 seconds at most.",
    )
    session_timeout_s: float = Field(
        8.0,
        ge=1,
        le=300,
        description="Seconds after which a reader that Kafka does not hear of loses its "
        "partitions to others.",
    )
    security: Literal["plaintext", "tls", "sasl", "sasl_tls"] = Field(
        "plaintext", description="How Kafka is reached: TLS or not, with SASL or without."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How user and password of `url` are shown to Kafka."
    )
    password_file: Path | None = Field(
        None, description="File with the password of Kafka, in place of one in `url`."
    )
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) that sign those of Kafka; none: those of the system."
    )
    certificate_file: Path | None = Field(
        None, description="Our certificate (PEM), where Kafka asks for one."
    )
    key_file: Path | None = Field(None, description="Key of our certificate (PEM).")
    client_options: dict[str, str] = Field(
        default_factory=dict,
        description="Further options of librdkafka for each client; they win over ours.",
    )


class IndexSettings(_Section):
    """The index of patients, studies and series."""

    url: str = Field(
        "",
        description="Empty: `sqlite:///<root>/index/index.sqlite`. Or PostgreSQL: "
        "`postgresql://ROLE@HOST:PORT/DATABASE`.",
    )
    password_file: Path | None = Field(
        None, description="File with the password of PostgreSQL, in place of one in `url`."
    )
    owner_url: str = Field(
        "",
        description="How `wado init` reaches PostgreSQL, as the owner of the tables; empty: `url`, "
        "whose role row-level security then does not bind.",
    )
    owner_password_file: Path | None = Field(
        None, description="File with the password of the owner, in place of one in `owner_url`."
    )
    timeout_s: float = Field(
        4.0,
        ge=1,
        le=600,
        description="Seconds to wait for PostgreSQL: for a connection, and for each answer.",
    )
    max_connections: int = Field(
        8, ge=1, description="Most connections of a process to PostgreSQL."
    )


class WarehouseSettings(_Section):
    """The warehouse of object, state and image records, access log and transcode log."""

    url: str = Field(
        "",
        description="Empty: `duckdb:///<root>/warehouse/warehouse.duckdb`. Or Apache Doris: "
        "`doris://USER@FE-1:9030,FE-2:9030/DATABASE`.",
    )
    password_file: Path | None = Field(
        None, description="File with the password of Doris, in place of one in `url`."
    )
    http_url: str = Field(
        "",
        description="Frontends of Doris for Stream Load, separated by commas "
        "(`http://FE-1:8030,http://FE-2:8030`), tried in turn; empty: port 8030 of the hosts "
        "of `url`.",
    )
    label_prefix: str = Field(
        "wado",
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description="Begins the labels of loads into Doris; another one for a message log that is "
        "made anew within the days for which Doris knows labels.",
    )
    replicas: int = Field(
        3, ge=1, description="Replicas of each table in Doris, set when it is made."
    )
    image_buckets: int = Field(
        32, ge=1, description="Buckets of `dicom_image_meta` in Doris, set when it is made."
    )
    buckets: int = Field(
        4,
        ge=1,
        description="Buckets of the other tables (of each month, where they have partitions) in "
        "Doris, set when they are made.",
    )
    connect_timeout_s: float = Field(
        3.0, gt=0, description="Seconds to wait for a connection to Doris."
    )
    query_timeout_s: float = Field(30.0, gt=0, description="Seconds a query of Doris may take.")
    load_timeout_s: float = Field(60.0, gt=0, description="Seconds a load into Doris may take.")
    connections: int = Field(
        4, ge=1, description="Most connections for queries of Doris, in each process."
    )


class CacheSettings(_Section):
    """The cache."""

    url: str = Field(
        "memory://",
        description="`memory://`: within each process. Or Redis: `redis://HOST:PORT/DB`, "
        "`rediss://` (TLS), `unix:///PATH?db=DB`.",
    )
    password_file: Path | None = Field(
        None, description="File with the password of Redis, in place of one in `url`."
    )
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) that sign that of Redis; none: those of the system."
    )
    prefix: str = Field(
        "wado",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Begins each key in Redis; archives that share one need different ones.",
    )
    timeout_s: float = Field(
        0.2, gt=0, le=10, description="Seconds after which we go on without an answer of Redis."
    )
    max_connections: int = Field(16, ge=1, description="Most connections of a process to Redis.")
    max_bytes: int = Field(64 << 20, ge=0, description="Limit of the cache in memory, in bytes.")


class StorescpSettings(_Section):
    """The DIMSE receiver."""

    host: str = Field("127.0.0.1", description="Address to listen at.")
    port: Port = Field(11112, description="TCP port of DICOM.")
    ae_title: str = Field("WADO", max_length=16, description="Our AE title.")
    require_called_ae_title: bool = Field(
        default=False, description="Reject associations that call another AE title."
    )
    allowed_calling_ae_titles: tuple[str, ...] = Field(
        (), description="Calling AE titles that may associate; empty: all."
    )
    tenants: dict[str, str] = Field(
        default_factory=dict,
        description="Called AE title to tenant; each is also an AE title that we answer to.",
    )
    workers: int = Field(2, ge=1, le=64, description="Receiving processes.")
    max_associations: int = Field(
        128, ge=1, description="Associations at a time in each process; more are rejected."
    )
    max_pdu_bytes: int = Field(
        131072, ge=4096, le=1 << 20, description="Longest PDU we ask peers to send, in bytes."
    )
    artim_timeout_s: float = Field(
        30.0, gt=0, description="Seconds in which a peer must finish a request or a PDU it began."
    )
    idle_timeout_s: float = Field(
        600.0, gt=0, description="Seconds without a message after which we abort."
    )
    proxy_protocol_from: tuple[Network, ...] = Field(
        (),
        description="Networks of proxies (`10.0.0.0/8`) that begin each connection with a PROXY "
        "header, version 1 or 2, which names the sender: from these it must come, from all others "
        "it is refused.",
    )
    tls_certificate: str = Field(
        "", description="File of our certificate and its chain (PEM): TLS only; empty: no TLS."
    )
    tls_certificate_key: str = Field(
        "", description="File of the certificate's private key (PEM); empty: in the same."
    )
    tls_client_ca: str = Field(
        "",
        description="File of the authorities (PEM) of which peers need a certificate; empty: they "
        "need none.",
    )


class ServerSettings(_Section):
    """The web server."""

    host: str = Field("127.0.0.1", description="Address to listen at.")
    port: Port = Field(8080, description="TCP port of HTTP.")
    workers: int = Field(2, ge=1, le=64, description="Serving processes.")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Address of our root as clients have it (`https://pacs.example.org/pacs`), for "
        "all addresses in answers; empty: as each request and its proxies say.",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/?$",
        description="Path before ours in requests (`/pacs`), where a proxy does not cut it off; "
        "empty: that of `public_url`.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        description="Networks of proxies whose `Forwarded` and `X-Forwarded-…` headers are "
        "believed; those of all others are passed over.",
    )
    x_accel_location: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Internal location of nginx (`/_files`) below which it has the storage root: "
        "whole files are left to it, for trusted proxies that ask so; empty: sent by us.",
    )
    cors_origins: tuple[str, ...] = Field(
        ("*",),
        description="Origins whose pages may read answers (`https://a.example.org`); `*`: all.",
    )
    deidentification_key: str = Field(
        "",
        description="Secret (16 characters or more) from which UIDs are replaced for "
        "`anonymize=yes` of WADO-URI; empty: that is refused.",
        pattern=r"^(.{16,})?$",
    )
    tenant_header: str = Field(
        "x-tenant", description="Header that names the tenant where authentication is off."
    )
    stow_visible_wait_s: float = Field(
        2.0, ge=0, description="Seconds a STOW-RS answer waits for its instances to be searchable."
    )
    stow_metadata_bytes: int = Field(
        16 << 20,
        ge=1024,
        description="Longest part of metadata (JSON or XML) of a STOW-RS request, in bytes; its "
        "bulk data may be of any length.",
    )
    allow_delete: bool = Field(
        default=True, description="Whether studies, series and instances can be deleted by HTTP."
    )
    delete_wait_s: float = Field(
        10.0, ge=0, description="Seconds an answer waits for its deletion; then it is 202."
    )
    commitment_wait_s: float = Field(
        2.0,
        ge=0,
        description="Seconds the answer to a storage commitment request waits for its result; "
        "then it is 202.",
    )
    max_commitment_references: int = Field(
        50_000, ge=1, description="Most instances of one storage commitment request."
    )
    stall_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without a byte after which a transfer is given up."
    )
    default_limit: int = Field(100, ge=1, description="Rows of a search that names no limit.")
    max_limit: int = Field(1000, ge=1, description="Most rows of one search answer.")
    pixel_workers: int = Field(
        2,
        ge=1,
        le=64,
        description="Most processes that decode, transcode or render, for each serving process; "
        "started when needed.",
    )
    pixel_timeout_s: float = Field(
        30.0, gt=0, description="Seconds after which work on a frame is given up."
    )
    pixel_memory_bytes: int = Field(
        4 << 30,
        ge=1 << 29,
        description="Address space of a process that works on pixels, in bytes.",
    )
    max_pixels: int = Field(
        1 << 28, ge=1, description="Most pixels of a frame that is decoded or rendered."
    )
    strict_accept: bool = Field(
        default=False,
        description="Refuse requests for content without Accept header (406), as PS3.18 §8.7.5 "
        "asks; clients in use send none.",
    )


class ConsumerSettings(_Section):
    """The consumer."""

    batch_messages: int = Field(500, ge=1, description="Most messages of one batch.")
    load_interval_s: float = Field(
        2.0, ge=0, description="Seconds between loads of the warehouse, so that they are large."
    )
    load_tables: tuple[LoadedTable, ...] = Field(
        get_args(LoadedTable),
        description="Tables of the warehouse that the consumer loads; not those that Doris reads "
        "from Kafka by itself (Routine Load).",
    )


class WebworkerSettings(_Section):
    """The webworker."""

    interval_s: float = Field(1.0, gt=0, description="Seconds between looks for changed series.")
    quiet_s: float = Field(
        2.0, ge=0, description="Seconds for which a series must rest before it is described."
    )


class TelemetrySettings(_Section):
    """Health and metrics of services that have no web server of their own."""

    host: str = Field("127.0.0.1", description="Address to listen at.")
    port: Port = Field(
        0,
        description="TCP port of `/livez`, `/readyz` and `/metrics` of `wado storescp`, "
        "`consumer`, `webworker` and `up`; 0: none. Services on one machine need different ones.",
    )
    stuck_after_s: float = Field(
        300.0,
        gt=0,
        description="Seconds without progress after which a process is not alive.",
    )


class Settings(BaseSettings):
    """All settings of an archive."""

    model_config = SettingsConfigDict(
        env_prefix="WADO_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    profile: Literal["embedded", "distributed"] = Field(
        "embedded", description="`distributed` refuses adapters that live on one machine."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severity that is logged."
    )
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    index: IndexSettings = IndexSettings()
    warehouse: WarehouseSettings = WarehouseSettings()
    cache: CacheSettings = CacheSettings()
    storescp: StorescpSettings = StorescpSettings()
    server: ServerSettings = ServerSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    webworker: WebworkerSettings = WebworkerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    nginx: NginxSettings = NginxSettings()
    transcode: TranscodeSettings = TranscodeSettings()


def load_settings(config: Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Read the settings: defaults, then `config` (TOML), then environment, then `overrides`.

    Raises
    ------
    pydantic.ValidationError
        A setting is unknown or has a wrong value.
    """

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is given
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            files = [TomlConfigSettingsSource(settings_cls, config)] if config else []
            return init_settings, env_settings, *files

    return WithFile(**overrides)  # type: ignore[arg-type]  # sections are given as plain dicts
