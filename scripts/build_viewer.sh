#!/bin/sh
# Build the viewer into src/wado/viewer, from where wado-server serves it.
set -eu
cd "$(dirname "$0")/../viewer"

node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null || {
    echo "setup: Node.js 20 or newer is needed to build the viewer" >&2
    exit 1
}
# npm writes node_modules/.package-lock.json last, so it tells whether the lock is installed.
if [ ! -e node_modules/.package-lock.json ] ||
    [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "setup: npm packages of the viewer"
    npm ci --no-audit --no-fund --loglevel=error
fi
echo "setup: building the viewer"
npm run --silent build
# Sent as they are to browsers that take gzip: a quarter of the bytes, compressed once.
find ../src/wado/viewer/assets -type f \( -name '*.js' -o -name '*.css' -o -name '*.wasm' \) \
    -exec gzip --best --keep --force --no-name {} +
