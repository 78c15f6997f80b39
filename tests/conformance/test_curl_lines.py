"""The commands of docs/dicomweb.md, run as they stand by a shell."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import real
import synthetic
from service import RunningArchive


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_the_commands_of_the_page_work_one_after_the_other(running: RunningArchive, tmp_path: Path):
    page = (real.PROJECT / "docs" / "dicomweb.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    assert commands.count("curl ") > 20
    file = tmp_path / "image.dcm"
    file.write_bytes(synthetic.part10(synthetic.ct(study="curl-lines", StudyDate="20991231")))
    picture = tmp_path / "picture.jpg"
    Image.new("L", (24, 16), 99).save(picture)
    done = subprocess.run(
        ["bash", "-eux", "-c", f"{commands}\npwd"],
        env={**os.environ, "ROOT": running.http, "FILE": str(file), "PICTURE": str(picture),
             "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    folder = Path(done.stdout.splitlines()[-1])
    made = {path.name: path for path in folder.iterdir()}
    assert all(path.stat().st_size for path in made.values())
    for name in (
        "image.jpg",
        "image.png",
        "frame.png",
        "thumbnail.jpg",
        "picture.jpg",
        "small.png",
    ):
        with Image.open(made[name]) as shown:
            shown.load()
    for name in ("image.dcm", "stored.dcm", "object.dcm"):
        assert made[name].read_bytes()[128:132] == b"DICM"
