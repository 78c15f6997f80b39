"""Look for what must not be committed: run as a hook on the files named, or on all of git's.

Large files, private keys, addresses of package registries, paths of this machine, notes to self.
Prints one line for each fault and exits with 1 if there are any.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LARGEST_BYTES = 1_000_000

# Written so that this file does not match itself.
_FORBIDDEN = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE K[E]Y"),
    "a note to self": re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b"),
    "the address of a package registry": re.compile(
        r"\b(?:pypi|pythonhosted|npmjs|yarnpkg|jsdelivr|unpkg|crates|maven|golang|debian)"
        r"\.(?:org|com|io|net)\b|index-[u]rl"
    ),
}
_LOCK = re.compile(r'"resolved": "http|\b(?:url|registry) = "http')


def faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with one file, each as a phrase with its line."""
    data = path.read_bytes()
    if len(data) > LARGEST_BYTES:
        yield f"large file: {len(data)} bytes, limit {LARGEST_BYTES}"
    if b"\0" in data[:8192]:
        return
    text = data.decode(errors="replace")
    if "lock" in path.name and (found := _LOCK.search(text)):
        yield f"{_line(text, found.start())}: a download address in a lock file"
    for what, pattern in _FORBIDDEN.items():
        if found := pattern.search(text):
            yield f"{_line(text, found.start())}: {what}: {found[0]}"
    here = f"{PROJECT.parent}/"
    if len(here) > 2 and (at := text.find(here)) >= 0:
        yield f"{_line(text, at)}: a path of this machine: {here}"


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def committed_files() -> list[Path]:
    """List the files that git has or would take; all files where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else []
    return [path for name in names if name and (path := PROJECT / name).is_file()]


def main(arguments: Sequence[str]) -> int:
    """Check the files named, or all of them."""
    bad = 0
    for path in [Path(a) for a in arguments] or committed_files():
        for fault in faults(path):
            print(f"{path}: {fault}")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
