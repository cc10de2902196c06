#!/bin/sh
# Runs rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER) as cargo-fuzz would on nightly,
# without its sanitizers, which need nightly: with coverage counters and comparisons, for libFuzzer to
# see where an input goes. Everybody else's crates are the ones that other builds have made already.
#
# A debug build is optimised a little, but for `control`: that would take longer than CI's whole run.
case "$CARGO_PKG_NAME $*" in
*" -C opt-level="* | *-Copt-level=* | "control "*) ;;
*) set -- "$@" -Copt-level=1 ;;
esac
exec "$@" --cfg fuzzing -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
	-Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
