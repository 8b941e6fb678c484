#!/usr/bin/env bash
# `npm run simulate [-- --seeds N …]`: sets the machine up and runs seeds of the simulator.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test >&2
exec node dist/test/simulator/run/main.js "$@"
