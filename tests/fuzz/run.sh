#!/bin/bash
# Fuzzes with libFuzzer on the stable toolchain. See README.md.
#
#   tests/fuzz/run.sh                              every target, 60 seconds each
#   tests/fuzz/run.sh --seconds 3600 wire_parse    one target, an hour
#   tests/fuzz/run.sh --reproduce FILE wire_parse  one input again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly TARGETS=(wire_parse director config_toml config_keepalived)
readonly BUILD=../../target/fuzz

seconds=60
reproduce=
chosen=()
while (($# > 0)); do
	case "$1" in
	--seconds) seconds=${2:?run.sh: --seconds needs a number} && shift 2 ;;
	--reproduce) reproduce=$(realpath "${2:?run.sh: --reproduce needs a file}") && shift 2 ;;
	*)
		if [[ " ${TARGETS[*]} " != *" $1 "* ]]; then
			echo "run.sh: no target '$1'; there are: ${TARGETS[*]}" >&2
			exit 2
		fi
		chosen+=("$1")
		shift
		;;
	esac
done
((${#chosen[@]} > 0)) || chosen=("${TARGETS[@]}")

# What cargo-fuzz would pass on nightly, without its sanitizers, which need nightly: coverage
# counters and comparisons, for libFuzzer to see where an input goes. With --target, so that build
# scripts and macros are built without.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
	cargo build --quiet --release --locked --target "$host" --target-dir "$BUILD"

for target in "${chosen[@]}"; do
	program=$BUILD/$host/release/$target
	if [[ -n $reproduce ]]; then
		"$program" "$reproduce"
		continue
	fi
	# New inputs go to the first directory, which is not committed; the others are read.
	found=$BUILD/corpus/$target
	crashes=$BUILD/crashes/$target
	mkdir -p "$found" "$crashes"
	inputs=("$found" "corpus/$target")
	options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096
		-artifact_prefix="$crashes/" -verbosity=0 -print_final_stats=1)
	if [[ $target == config_toml ]]; then
		inputs+=(../../configs)
		options+=(-dict=config_toml.dict -max_len=16384)
	elif [[ $target == config_keepalived ]]; then
		inputs+=(../../configs/keepalived)
		options+=(-dict=config_keepalived.dict -max_len=16384)
	fi
	log=$BUILD/$target.log
	if "$program" "${options[@]}" "${inputs[@]}" >"$log" 2>&1; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		echo "fuzz: $target: $runs inputs in $seconds s, no failure"
	else
		cat "$log" >&2
		echo "fuzz: $target FAILED; again with: tests/fuzz/run.sh --reproduce FILE $target" >&2
		exit 1
	fi
done
