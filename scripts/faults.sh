#!/usr/bin/env bash
# `npm run test:faults [-- WHAT ...]`: sets the machine up, builds, runs the fault tests on real
# processes, one at a time. WHAT: numbers of scenarios (docs/testing.md), or parts of file names;
# nothing: all, an hour and more. The last line is `N passed, N failed`.
#
#   AUROCHS_SEED=N   replays the choices of a run that failed; its report names the seed
#   AUROCHS_KILLS=N  kills of the storm; AUROCHS_MIXES=N mixes of faults
set -uo pipefail
cd "$(dirname "$0")/.."
if ! bash scripts/setup.sh test; then
  echo "set-up failed; no test ran"
  echo "0 passed, 1 failed"
  exit 1
fi

files=()
numbers=()
for what in "$@"; do
  if [[ "$what" =~ ^[0-9]+$ ]]; then numbers+=("$what"); else files+=("$what"); fi
done
chosen=()
if [ "${#numbers[@]}" -gt 0 ]; then
  any="$(IFS='|'; echo "${numbers[*]}")"
  chosen=(--testNamePattern "scenarios? ([0-9]+(, | and ))*($any)\b")
fi

report="$(mktemp "${TMPDIR:-/tmp}/aurochs-faults.XXXXXX.json")"
trap 'rm -f "$report"' EXIT
reporters=(--reporter=verbose --reporter=json "--outputFile.json=$report")
node_modules/.bin/vitest run --config vitest.faults.config.ts "${reporters[@]}" \
  "${chosen[@]}" "${files[@]}"
status=$?
node scripts/test-summary.mjs "$report" "$status" 0
