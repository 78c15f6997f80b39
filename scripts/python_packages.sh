#!/bin/sh
# Make the virtual environment and put the locked packages into it: python_packages.sh VENV
set -eu

venv="$1"
python="${PYTHON:-python3}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null

echo "setup: Python packages into $venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }
pip install --require-hashes -r constraints.txt
pip install --no-deps --no-build-isolation -e .
