#!/usr/bin/env bash
# `npm start`: sets the machine up and runs a demo volume with three copies in ./.aurochs, in the
# foreground.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh start
exec bin/aurochs up --data .aurochs --demo "$@"
