"""nginx in the foreground; with `nginx.run_folder` set, all that it writes lies below that."""

import os
import re
import shutil
from pathlib import Path

from backing.program import Program, connects

_PROGRAM = "nginx"
_LISTEN = re.compile(r"^\s*listen (?:\S*:)?(\d+)[ ;]", re.MULTILINE)


def server(folder: Path, configuration: str, *, name: str = "nginx") -> Program:
    """Describe nginx by a configuration as `wado.nginx.nginx_configuration` writes it.

    Parameters
    ----------
    folder
        Where it runs, and where its configuration and output go; the same as `nginx.run_folder`.
    configuration
        Its text; addresses to listen at are of this machine.
    name
        Of the program and its files, where there are several in a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.conf"
    file.write_text(configuration)
    ports = sorted({int(port) for port in _LISTEN.findall(configuration)})
    return Program(
        name,
        "nginx",
        [_program(), *_arguments(folder, file), "-g", "daemon off;"],
        folder,
        lambda: all(map(connects, ports)),
        start_within_s=60.0,
    )


def check_arguments(folder: Path, file: Path) -> list[str]:
    """Command line by which nginx says whether it takes a configuration."""
    return [_program(), *_arguments(folder, file), "-t"]


def own_user() -> str:
    """User for `nginx.user`: root may go on as root, so that it reads what we write."""
    return "root" if os.geteuid() == 0 else ""


def _arguments(folder: Path, file: Path) -> list[str]:
    return ["-e", str(folder / "start.log"), "-c", str(file)]


def _program() -> str:
    """Path of nginx; distributions put it where only root looks."""
    return shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or _PROGRAM
