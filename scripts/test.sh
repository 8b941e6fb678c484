#!/usr/bin/env bash
# `npm test [-- vitest arguments]`: sets the machine up, builds (which checks the types), lints,
# runs every test. The last line is `N passed, N failed`; a failed lint counts as one. Exit status 0
# only if nothing failed.
set -uo pipefail
cd "$(dirname "$0")/.."
if ! bash scripts/setup.sh test; then
  echo "set-up failed; no test ran"
  echo "0 passed, 1 failed"
  exit 1
fi

lint_failed=0
echo "lint: biome check"
node_modules/.bin/biome check . || lint_failed=1

report="$(mktemp "${TMPDIR:-/tmp}/aurochs-test.XXXXXX.json")"
trap 'rm -f "$report"' EXIT
reporters=(--reporter=default --reporter=json "--outputFile.json=$report")
node_modules/.bin/vitest run "${reporters[@]}" "$@"
status=$?
node scripts/test-summary.mjs "$report" "$status" "$lint_failed"
