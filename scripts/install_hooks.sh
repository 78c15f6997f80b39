#!/bin/sh
# Install the pre-commit hooks into a developer's checkout: install_hooks.sh VENV/bin
# Left out in CI, outside git, and where the developer keeps hooks of their own.
set -eu
[ "${CI:-}" != true ] || exit 0
hooks="$(git rev-parse --git-path hooks 2>/dev/null)" || exit 0
[ ! -e "$hooks/pre-commit" ] || exit 0
[ -z "$(git config core.hooksPath || true)" ] || exit 0
"$1/pre-commit" install >/dev/null
echo "setup: pre-commit hooks installed"
