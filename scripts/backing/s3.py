"""An S3 on loopback that keeps everything in memory: moto's server. It checks no signatures."""

import http.client
import sys
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from backing.program import Program, connects, free_port

BUCKET = "wado"
_SERVER = Path(__file__).with_name("s3_server.py")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def server(folder: Path, port: int | None = None) -> tuple[Program, str]:
    """Describe an S3 server, and give its address.

    Parameters
    ----------
    folder
        Where its output goes.
    port
        TCP port of 127.0.0.1; a free one if None.
    """
    port = port or free_port()
    program = Program(
        "s3",
        "s3",
        [sys.executable, "-P", str(_SERVER), "-H", "127.0.0.1", "-p", str(port)],
        folder,
        lambda: connects(port),
        start_within_s=120.0,
    )
    return program, f"http://127.0.0.1:{port}"


def make_bucket(endpoint: str, bucket: str = BUCKET) -> None:
    """Make a bucket; one that is there stays."""
    with closing(http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=60)) as s3:
        s3.request("PUT", f"/{bucket}")
        status = s3.getresponse().status
    if status != HTTPStatus.OK:
        raise RuntimeError(f"the bucket {bucket} can't be made: {status}")
