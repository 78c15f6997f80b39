"""Loads by the loader of ray-doris, without Ray: `load` (Parquet), then a partial update (JSON).

Arguments: FE port, BE port, user, password, database, table, Parquet file. One line each.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path


def _without_ray() -> None:
    """Give the packages no code of their own: theirs would import Ray."""
    spec = importlib.util.find_spec("ray_doris")
    assert spec is not None
    assert spec.submodule_search_locations
    for name in ("ray_doris", "ray_doris.write"):
        package = types.ModuleType(name)
        folder = Path(spec.submodule_search_locations[0], *name.split(".")[1:])
        package.__path__ = [str(folder)]
        sys.modules[name] = package


def main() -> None:
    """Do it."""
    http, be, user, password, database, table, parquet = sys.argv[1:]
    _without_ray()
    connection = importlib.import_module("ray_doris.write.connection")
    options = importlib.import_module("ray_doris.write.options")
    loader = importlib.import_module("ray_doris.write.stream_load")
    where = connection.DorisConnection(
        "127.0.0.1",
        user,
        password,
        http_port=int(http),
        redirect_hosts=("127.0.0.1",),
        redirect_ports=(int(be),),
    )
    place = connection.DorisTable(database, table)
    body = Path(parquet).read_bytes()
    client = loader.StreamLoadClient(where, place, options.DorisWriteOptions())
    print(client.load(body, rows=3, columns=("id", "name")))
    partial = options.DorisWriteOptions(operation="partial_update")
    client = loader.StreamLoadClient(where, place, partial)
    rows = b'{"id": 1, "size": 11}\n{"id": 2, "size": 22}\n'
    print(client.load(rows, rows=2, columns=("id", "size")))


if __name__ == "__main__":
    main()
