#!/bin/sh
# Install the Debian packages that the tests need, if one of their programs is missing.
set -eu

have() { PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null 2>&1; }

packages=""
have storescu || packages="$packages dcmtk"
have chromium || have chromium-browser || have google-chrome || packages="$packages chromium"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
[ -n "$packages" ] || exit 0

if ! have apt-get; then
    echo "setup: not a Debian machine; please install yourself:$packages" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif have sudo; then
    sudo="sudo"
else
    echo "setup: needs root or sudo to install:$packages" >&2
    exit 1
fi
echo "setup: installing$packages"
$sudo apt-get update -qq
# shellcheck disable=SC2086  # both are lists of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
