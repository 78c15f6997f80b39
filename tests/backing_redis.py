"""Redis for tests: one for the whole run, which tests share by prefixes of their own."""

from pathlib import Path
from typing import Any

from backing import redis
from backing.program import Program
from backing_services import shared
from real import require


def shared_redis(run_folder: Path) -> str:
    """Give the URL of the Redis of this run; it is started if this is its first user."""
    require("redis")

    def start(folder: Path) -> tuple[list[Program], dict[str, Any]]:
        program, url = redis.server(folder)
        return [program], {"url": url}

    return str(shared(run_folder, "redis", start)["url"])
