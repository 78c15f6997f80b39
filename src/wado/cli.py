"""The command line: `wado up`, the services one by one, and the tools of an operator."""

import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from wado.errors import WadoError
from wado.profile import check_profile, setting_fault
from wado.settings import Settings, load_settings
from wado.telemetry import configure_logging

app = typer.Typer(
    name="wado",
    help="A DICOMweb archive: C-STORE and STOW-RS in, QIDO-RS and WADO-RS out, with a viewer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
dlq_app = typer.Typer(help="Messages that could not be processed.", no_args_is_help=True)
app.add_typer(dlq_app, name="dlq")
deleted_app = typer.Typer(
    help="Instances that were deleted and can be restored.", no_args_is_help=True
)
app.add_typer(deleted_app, name="deleted")
deploy_app = typer.Typer(help="Configurations of what runs beside us.", no_args_is_help=True)
app.add_typer(deploy_app, name="deploy")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Config = Annotated[
    Path | None,
    typer.Option(help="Settings file (TOML); default: wado.toml here, if there is one."),
]
Root = Annotated[Path | None, typer.Option(help="Folder below which everything is written.")]
Http = Annotated[str | None, typer.Option(help="HOST:PORT of the web server.")]
Dimse = Annotated[str | None, typer.Option(help="HOST:PORT of the DICOM receiver.")]
Aet = Annotated[str | None, typer.Option(help="Our AE title.")]


@app.callback()
def _options(ctx: typer.Context, config: Config = None) -> None:
    """Take the options that every command has."""
    if config is not None:
        given: dict[str, Any] = {
            c.name or c.callback.__name__: {"config": config}
            for c in app.registered_commands
            if c.callback
        }
        given["dlq"] = {name: {"config": config} for name in ("list", "replay")}
        given["deleted"] = {"list": {"config": config}}
        given["deploy"] = {"nginx": {"config": config}}
        ctx.default_map = given


def main() -> None:
    """Run the command line; a user's mistake is one line, not a stack trace."""
    with _said_plainly():
        app()


def server_main() -> None:
    """`wado-server` is `wado server`."""
    _as_command("server")


def storescp_main() -> None:
    """`wado-storescp` is `wado storescp`."""
    _as_command("storescp")


def consumer_main() -> None:
    """`wado-consumer` is `wado consumer`."""
    _as_command("consumer")


def webworker_main() -> None:
    """`wado-webworker` is `wado webworker`."""
    _as_command("webworker")


def _as_command(name: str) -> None:
    sys.argv.insert(1, name)
    main()


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except ValidationError as e:
        for fault in e.errors():
            err.print(f"wado: {setting_fault(fault)}", markup=False)
        sys.exit(2)
    except SettingsError as e:
        err.print(f"wado: the settings can't be read: {e}", markup=False)
        sys.exit(2)
    except (WadoError, FileNotFoundError, PermissionError) as e:
        err.print(f"wado: {e}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _settings(
    config: Path | None,
    root: Path | None = None,
    http: str | None = None,
    dimse: str | None = None,
    aet: str | None = None,
) -> Settings:
    """Settings with the options of the command line over them."""
    overrides: dict[str, dict[str, Any]] = {}
    if root is not None:
        overrides["storage"] = {"root": root}
    if http is not None:
        overrides["server"] = _host_port("--http", http)
    if dimse is not None:
        overrides["storescp"] = _host_port("--dimse", dimse)
    if aet is not None:
        overrides.setdefault("storescp", {})["ae_title"] = aet
    if config is None and Path("wado.toml").is_file():
        config = Path("wado.toml")
    if config is not None and not config.is_file():
        raise typer.BadParameter(f"there is no settings file {config}", param_hint="--config")
    try:
        settings = load_settings(config, **overrides)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError(f"{config}: {e}") from e
    configure_logging(settings.log_level)
    return settings


def _existing(settings: Settings) -> Settings:
    """Refuse to care for an archive that is not there (a slip in --root), or one would be made."""
    if not settings.storage.url and not settings.storage.root.is_dir():
        raise FileNotFoundError(f"there is no archive at {settings.storage.root}")
    return settings


def _host_port(option: str, value: str) -> dict[str, Any]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit():
        raise typer.BadParameter(f"{value!r} is not HOST:PORT", param_hint=option)
    return {"host": host.strip("[]") or "0.0.0.0", "port": int(port)}  # noqa: S104 - ":8080" asks so


# ------------------------------------------------------------------ services


@app.command()
def up(
    root: Root = None,
    http: Http = None,
    dimse: Dimse = None,
    aet: Aet = None,
    config: Config = None,
) -> None:
    """Run the whole archive on this machine, in the foreground."""
    from wado.supervisor import RunLock, Supervisor, run_folder, services  # noqa: PLC0415 - slow to load

    settings = _settings(config, root, http, dimse, aet)
    check_profile(settings)
    began = time.monotonic()

    def ready() -> None:
        seconds = time.monotonic() - began
        out.print(
            f"ready http://{settings.server.host}:{settings.server.port}/  "
            f"DICOM {settings.storescp.ae_title}@{settings.storescp.host}:{settings.storescp.port}"
            f"  root {settings.storage.root}  ({seconds:.1f} s)"
        )

    with RunLock(run_folder(settings), "wado up"):
        supervisor = Supervisor(settings, services(settings), err.print, ready)
        supervisor.run()
    out.print("stopped")


@app.command()
def storescp(
    root: Root = None, dimse: Dimse = None, aet: Aet = None, config: Config = None
) -> None:
    """Run only the DICOM receiver: it stores files and announces them on the log."""
    _run_alone("storescp", _settings(config, root, dimse=dimse, aet=aet))


@app.command()
def server(root: Root = None, http: Http = None, config: Config = None) -> None:
    """Run only the web server: DICOMweb and the viewer."""
    _run_alone("server", _settings(config, root, http))


@app.command()
def consumer(root: Root = None, config: Config = None) -> None:
    """Run only the consumer: it catalogues what was announced and loads the warehouse."""
    _run_alone("consumer", _settings(config, root))


@app.command()
def webworker(root: Root = None, config: Config = None) -> None:
    """Run only the webworker: it writes metadata files and keeps the counts."""
    _run_alone("webworker", _settings(config, root))


def _run_alone(kind: str, settings: Settings) -> None:
    from wado.supervisor import Supervisor, run_until_signalled, services  # noqa: PLC0415

    check_profile(settings)
    chosen = services(settings, kind)
    if len(chosen) == 1:
        run_until_signalled(chosen[0].body)
    else:
        Supervisor(settings, chosen, err.print).run()


# ------------------------------------------------------------------ sending


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders to send.")],
    to: Annotated[str, typer.Option(help="Where to: AET@HOST:PORT.")] = "WADO@127.0.0.1:11112",
    associations: Annotated[int, typer.Option(min=1, max=32, help="Associations at a time.")] = 4,
    aet: Annotated[str, typer.Option(help="Our AE title.")] = "WADO_SEND",
) -> None:
    """Send DICOM files by C-STORE; exit code 1 if any was not stored."""
    from wado.cli_tools import send_with_progress  # noqa: PLC0415

    missing = [str(p) for p in paths if not p.exists()]
    if missing:
        raise FileNotFoundError(f"there is no {', '.join(missing)}")
    if not send_with_progress(paths, to, associations=associations, aet=aet, out=out, err=err):
        sys.exit(1)


@app.command()
def echo(
    to: Annotated[str, typer.Argument(help="Who is asked: AET@HOST:PORT.")] = (
        "WADO@127.0.0.1:11112"
    ),
    aet: Annotated[str, typer.Option(help="Our AE title.")] = "WADO_SEND",
) -> None:
    """Ask a DICOM peer whether it answers (C-ECHO)."""
    from wado.services.association import Peer  # noqa: PLC0415
    from wado.services.storescu import echo as ask  # noqa: PLC0415

    seconds = ask(Peer.parse(to), calling_ae_title=aet)
    out.print(f"{to} answers ({seconds * 1000:.1f} ms)")


# ------------------------------------------------------------------ care


@app.command()
def init(
    root: Root = None,
    config: Config = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for services that do not answer yet.")
    ] = 0.0,
) -> None:
    """Make topics, tables and folders, where absent; exit code 1 if some could not be made."""
    from wado.cli_tools import prepare_with_report  # noqa: PLC0415

    if not prepare_with_report(_settings(config, root), wait_s=wait, out=out, err=err):
        sys.exit(1)


@app.command()
def check(
    root: Root = None,
    config: Config = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is wrong.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also hash every file.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
) -> None:
    """Compare files, metadata, index, warehouse and log; exit code 1 if something is wrong."""
    from wado.cli_tools import check_with_progress  # noqa: PLC0415

    settings = _existing(_settings(config, root))
    if not check_with_progress(
        settings, repair=repair, deep=deep, tenant_id=tenant, out=out, err=err
    ):
        sys.exit(1)


@app.command()
def transcode(  # noqa: PLR0913 - options of a command
    study: Annotated[str | None, typer.Argument(help="Only this Study Instance UID.")] = None,
    series: Annotated[str | None, typer.Argument(help="Only this Series Instance UID.")] = None,
    instance: Annotated[str | None, typer.Argument(help="Only this SOP Instance UID.")] = None,
    *,
    root: Root = None,
    config: Config = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Only this tenant; default: all, or of a study the default one."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Transfer syntax of the copies, in place of the rules.")
    ] = "",
    quality: Annotated[int, typer.Option(min=0, max=100, help="Of lossy copies; 100 is best.")] = 0,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what could not be made before.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Leave the work to the webworkers.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove copies, all or those in the target.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Images at a time; 0: as set, or half of the cores.")
    ] = 0,
) -> None:
    """Make copies of what is stored, in other transfer syntaxes; exit code 1 if some failed."""
    from wado.cli_transcode import Asked, transcode_stored  # noqa: PLC0415

    uids = tuple(uid for uid in (study, series, instance) if uid)
    asked = Asked(uids, tenant, target, quality, failed, dry_run, queue, remove, workers)
    settings = _existing(_settings(config, root))
    if not transcode_stored(settings, asked, out=out, err=err):
        sys.exit(1)


@app.command()
def verify(  # noqa: PLR0913 - options of a command
    studies: Annotated[
        list[str] | None, typer.Argument(help="Only these Study Instance UIDs.")
    ] = None,
    *,
    root: Root = None,
    config: Config = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Only this tenant; default: all, or of studies the default one."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many, taken at random.")] = 100,
    every: Annotated[bool, typer.Option("--all", help="All of them, and all frames.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Takes the same sample again; default: another each time.")
    ] = None,
    originals: Annotated[bool, typer.Option(help="Check originals, too.")] = True,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove bad copies, and order them anew.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Images at a time; 0: as set, or half of the cores.")
    ] = 0,
) -> None:
    """Decode copies again and compare them with their originals; exit code 1 if one is bad."""
    from wado.cli_verify import Asked, verify_stored  # noqa: PLC0415

    asked = Asked(
        tuple(studies or ()), tenant, 0 if every else sample, seed, originals, repair, workers
    )
    settings = _existing(_settings(config, root))
    if not verify_stored(settings, asked, out=out, err=err):
        sys.exit(1)


@app.command()
def reindex(
    root: Root = None,
    config: Config = None,
    stopped: Annotated[
        bool, typer.Option("--stopped", help="All services are stopped, on all machines.")
    ] = False,
) -> None:
    """Rebuild index, metadata and warehouse from the files alone; the archive must be stopped."""
    from wado.cli_tools import reindex_with_progress  # noqa: PLC0415

    settings = _existing(_settings(config, root))
    reindex_with_progress(settings, stopped=stopped, out=out, err=err)


@app.command()
def synthesize(
    studies: Annotated[int, typer.Option(min=1, help="How many studies.")],
    root: Root = None,
    config: Config = None,
    start: Annotated[int, typer.Option(min=0, help="Number of the first one.")] = 0,
    manifest: Annotated[
        Path | None, typer.Option(help="Also list them in this file, for the benchmarks.")
    ] = None,
) -> None:
    """Fill the index with made-up studies without files, to measure searches; must be stopped."""
    from wado.cli_tools import synthesize_with_progress  # noqa: PLC0415

    numbers = range(start, start + studies)
    settings = _settings(config, root)
    synthesize_with_progress(settings, numbers, manifest=manifest, out=out, err=err)


@app.command()
def status(
    root: Root = None,
    config: Config = None,
    quick: Annotated[bool, typer.Option("--quick", help="Don't count what is stored.")] = False,
) -> None:
    """Show what answers, waits, runs and is stored; exit code 1 if not all answer."""
    from wado.cli_status import show_status  # noqa: PLC0415

    if not show_status(_existing(_settings(config, root)), quick=quick, out=out):
        sys.exit(1)


@app.command()
def restore(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    series: Annotated[str | None, typer.Argument(help="Only this Series Instance UID.")] = None,
    instance: Annotated[str | None, typer.Argument(help="Only this SOP Instance UID.")] = None,
    root: Root = None,
    config: Config = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant; default: the default one.")] = None,
) -> None:
    """Bring back what was deleted, until it is purged; the archive may run meanwhile."""
    from wado.cli_tools import restore_deleted  # noqa: PLC0415

    uids = [uid for uid in (study, series, instance) if uid]
    if not restore_deleted(_existing(_settings(config, root)), uids, tenant, out=out, err=err):
        sys.exit(1)


@deleted_app.command("list")
def deleted_list(
    root: Root = None,
    config: Config = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
) -> None:
    """List what was deleted and can be restored, a series to a line."""
    from wado.cli_tools import list_deleted  # noqa: PLC0415

    list_deleted(_existing(_settings(config, root)), tenant, out=out)


@dlq_app.command("list")
def dlq_list(root: Root = None, config: Config = None) -> None:
    """List the messages that could not be processed, with the reason."""
    from wado.cli_tools import list_dead_letters  # noqa: PLC0415

    list_dead_letters(_existing(_settings(config, root)), out=out)


@dlq_app.command("replay")
def dlq_replay(
    root: Root = None,
    config: Config = None,
    topic: Annotated[str | None, typer.Option(help="Only of this topic.")] = None,
) -> None:
    """Publish dead letters again, after their cause was mended."""
    from wado.cli_tools import replay_dead_letters  # noqa: PLC0415

    replay_dead_letters(_existing(_settings(config, root)), topic, out=out)


@deploy_app.command("nginx")
def deploy_nginx(
    config: Config = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: standard output.")
    ] = None,
) -> None:
    """Write the configuration of nginx, which stands before several servers and receivers."""
    from wado.nginx import nginx_configuration  # noqa: PLC0415

    text = nginx_configuration(_settings(config))
    if to is None:
        typer.echo(text, nl=False)
    else:
        to.write_text(text, encoding="utf-8")
