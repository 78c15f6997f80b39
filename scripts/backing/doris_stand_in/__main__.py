"""``python -m backing.doris_stand_in``: one FE and one BE in one process, until SIGTERM."""

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

from backing.doris_stand_in import http1, mysql
from backing.doris_stand_in.accounts import Accounts
from backing.doris_stand_in.backend import Backend
from backing.doris_stand_in.faults import Faults
from backing.doris_stand_in.frontend import Frontend
from backing.doris_stand_in.statements import Statements
from backing.doris_stand_in.store import Store

LABEL_KEEP_S = 43_200.0
"""`streaming_label_keep_max_second` of an FE that nobody has set."""

LABEL_NUM = 2_000
"""`label_num_threshold` of an FE that nobody has set."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="doris_stand_in", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where all data is kept")
    parser.add_argument("--http-port", type=int, default=8030, help="HTTP of the FE")
    parser.add_argument("--be-port", type=int, default=8040, help="HTTP of the BE")
    parser.add_argument("--mysql-port", type=int, default=9030, help="queries")
    parser.add_argument("--user", default="", help="a user besides root and admin")
    parser.add_argument("--backends", type=int, default=1, help="how many replicas there may be")
    parser.add_argument("--label-keep-s", type=float, default=LABEL_KEEP_S)
    parser.add_argument("--label-num", type=int, default=LABEL_NUM)
    parser.add_argument("--look-s", type=float, default=Backend.look_s, help="for late loads")
    return parser.parse_args()


def _broken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what went wrong, but for connections that ended."""
    if not isinstance(context.get("exception"), ConnectionError | asyncio.CancelledError):
        print("unexpected:", context, flush=True)
    elif loop.get_debug():
        loop.default_exception_handler(context)


async def _run(arguments: argparse.Namespace) -> None:
    store = Store(
        arguments.folder, label_keep_s=arguments.label_keep_s, label_num=arguments.label_num
    )
    password = os.environ.get("DORIS_STAND_IN_PASSWORD", "")
    accounts = Accounts(store, {arguments.user: password} if arguments.user else {})
    faults = Faults()
    ports = {"backends": arguments.backends, "be_port": arguments.be_port}
    statements = Statements(store, accounts, **ports)
    backend = Backend(store, accounts, faults, folder=arguments.folder, port=arguments.be_port)
    backend.look_s = arguments.look_s
    frontend = Frontend(store, accounts, faults, be_port=arguments.be_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    for name in ("mysql_mimic", "asyncio"):  # each connection that ends is an error to them
        logging.getLogger(name).setLevel(logging.CRITICAL)
    loop.set_exception_handler(_broken)
    await http1.serve(arguments.be_port, backend)
    await mysql.serve(arguments.mysql_port, statements, accounts, faults)
    await http1.serve(arguments.http_port, frontend)
    print("ready", flush=True)
    await stop.wait()
    store.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_run(_arguments()))
