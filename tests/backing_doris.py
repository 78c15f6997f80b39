"""The stand-in for Apache Doris in tests: one for the whole run, a database for each test."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from backing import doris
from backing.doris import Ports
from backing.program import Program
from backing_services import shared
from wado.adapters.warehouse.doris import DorisAddress, DorisWarehouse
from wado.adapters.warehouse.doris_init import prepare


def shared_doris(run_folder: Path) -> Ports:
    """Give the ports of the stand-in of this run; it is started if this is its first user."""

    def start(folder: Path) -> tuple[list[Program], dict[str, Any]]:
        ports = Ports.free()
        return [doris.server(folder, ports)], asdict(ports)

    return Ports(**shared(run_folder, "doris", start))


def address_of(ports: Ports, database: str, http_url: str = "") -> DorisAddress:
    """Give the address of a database."""
    return DorisAddress(ports.url_of(database), http_url or ports.frontend)


def make_tables(address: DorisAddress) -> list[str]:
    """Do as `wado init`, with one replica of few buckets."""
    return prepare(
        address, doris.PASSWORD, connect_timeout_s=60, replicas=1, buckets=2, image_buckets=4
    )


def open_doris(address: DorisAddress, **settings: Any) -> DorisWarehouse:
    """Open the warehouse, with patience for a busy machine."""
    return DorisWarehouse(address, doris.PASSWORD, **{"connect_timeout_s": 60, **settings})
