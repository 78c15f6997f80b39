"""Every setting: typed, with a unit in its name, a default that works on one machine.

Read from the environment (``WADO_STORAGE__DURABILITY=os``) over one TOML file (``wado.toml``).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Section):
    """Where the files are, and how safe."""

    root: Path = Field(Path("data"), description="Folder below which everything is written.")
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

    url: str = Field("", description="Empty: `sqlite:///<root>/log`.")
    partitions: int = Field(1, ge=1, description="Partitions of each topic, set when it is made.")
    retention_s: float = Field(
        3600.0, ge=0, description="Seconds for which messages are kept that everyone has read."
    )


class IndexSettings(_Section):
    """The index of patients, studies and series."""

    url: str = Field("", description="Empty: `sqlite:///<root>/index/index.sqlite`.")


class WarehouseSettings(_Section):
    """The warehouse of object, state and image records, access log and transcode log."""

    url: str = Field("", description="Empty: `duckdb:///<root>/warehouse/warehouse.duckdb`.")


class CacheSettings(_Section):
    """The cache."""

    url: str = Field("memory://", description="`memory://`: within each process.")
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


class WebworkerSettings(_Section):
    """The webworker."""

    interval_s: float = Field(1.0, gt=0, description="Seconds between looks for changed series.")
    quiet_s: float = Field(
        2.0, ge=0, description="Seconds for which a series must rest before it is described."
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
