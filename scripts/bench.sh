#!/usr/bin/env bash
# `npm run bench [-- --quick]`: sets the machine up and runs the benchmarks with peers side by side.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh bench
exec node dist/bench/main.js "$@"
