#!/bin/sh
# Install the Debian packages that the tests need, if one of their programs is missing.
set -eu

have() { PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null 2>&1; }

packages=""
have storescu || packages="$packages dcmtk"
have ffmpeg || packages="$packages ffmpeg"
have cjpeg || packages="$packages libjpeg-turbo-progs"
have gdcmconv || packages="$packages libgdcm-tools"
have chromium || have chromium-browser || have google-chrome || packages="$packages chromium"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
# What a distributed archive stands on. The tests and `make cluster` start their own processes of
# these, on loopback and free ports; what Debian starts of them at installation is not used.
have redis-server || packages="$packages redis-server"
have nginx || packages="$packages nginx-light"
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || packages="$packages libnginx-mod-stream"
have java || packages="$packages openjdk-17-jre-headless"
have mvn || packages="$packages maven"
if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    packages="$packages postgresql"
fi
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
