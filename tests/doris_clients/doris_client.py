"""Loads, deletes and queries by DorisClient; one line for each step.

Arguments: FE port, query port, user, password, database, table.
"""

import importlib
import sys


def main() -> None:
    """Do it."""
    http, mysql, user, password, database, table = sys.argv[1:]
    module = importlib.import_module("DorisClient")
    servers = [f"127.0.0.1:{http}"]
    session = module.DorisSession(servers, database, user, password, mysql_port=int(mysql))
    rows = [{"id": n, "name": f"n{n}", "size": None} for n in range(100, 110)]
    print(session.streamload(table, rows))
    print(session.streamload(table, [{"id": 109}], merge_type="DELETE"))
    print(session.read(f"SELECT count(*) AS n FROM {table} WHERE id >= 100"))


if __name__ == "__main__":
    main()
