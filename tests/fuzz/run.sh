#!/bin/bash
# Fuzzes with libFuzzer on the stable toolchain. See README.md.
#
#   tests/fuzz/run.sh                              every target, 60 seconds each
#   tests/fuzz/run.sh --seconds 3600 --release wire_parse   one target, an hour, all of it optimised
#   tests/fuzz/run.sh --reproduce FILE wire_parse  one input again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly TARGETS=(wire_parse director config_toml config_keepalived control_socket)

seconds=60
profile=dev directory=debug
reproduce=
chosen=()
while (($# > 0)); do
	case "$1" in
	--seconds) seconds=${2:?run.sh: --seconds needs a number} && shift 2 ;;
	--release) profile=release directory=release && shift ;;
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

RUSTC_WORKSPACE_WRAPPER=$PWD/instrument.sh cargo build --quiet --locked --package fuzz --profile "$profile"
target_directory=$(realpath "${CARGO_TARGET_DIR:-../../target}")
work=$target_directory/fuzz

for target in "${chosen[@]}"; do
	program=$target_directory/$directory/$target
	if [[ -n $reproduce ]]; then
		"$program" "$reproduce"
		continue
	fi
	# New inputs go to the first directory, which is not committed; the others are read.
	found=$work/corpus/$target
	crashes=$work/crashes/$target
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
	log=$work/$target.log
	if "$program" "${options[@]}" "${inputs[@]}" >"$log" 2>&1; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		echo "fuzz: $target: $runs inputs in $seconds s, no failure"
	else
		cat "$log" >&2
		echo "fuzz: $target FAILED; again with: tests/fuzz/run.sh --reproduce FILE $target" >&2
		exit 1
	fi
done
