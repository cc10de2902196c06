#!/bin/bash
# Checks ci.sh itself: a failing step makes it fail, a passing one does not, and it goes on after a
# failure. Uses only the quick step `files`, so it needs no build.
set -euo pipefail
cd "$(dirname "$0")/.."

# expect STATUS LAST-LINE [VARIABLE=VALUE…] -- STEP…
expect() {
	local want=$1 line=$2 environment=() output status=0
	shift 2
	while [[ $1 != -- ]]; do
		environment+=("$1")
		shift
	done
	shift
	output=$(env -u CI -u CI_FAIL "${environment[@]}" bash ci.sh "$@" 2>&1 <&-) || status=$?
	if [[ $status != "$want" || $(tail -n 1 <<<"$output") != $line ]]; then
		echo "${environment[*]} ./ci.sh $*: expected status $want and last line '$line', got $status:"
		printf '%s\n' "$output"
		exit 1
	fi
}

expect 0 "1 passed, 0 failed" -- files
expect 1 "0 passed, 1 failed" CI_FAIL=files -- files
# `selftest` is only ever run here as a failing step, else it would call itself.
expect 1 "1 passed, 1 failed" CI_FAIL=selftest -- selftest files
expect 2 "ci.sh: no step 'flies'*" -- flies
if [[ $EUID != 0 ]]; then
	expect 0 "0 passed, 0 failed, 1 skipped" -- lab
	expect 1 "0 passed, 1 failed" CI=true -- lab
fi
echo "ci.sh fails when it should"
