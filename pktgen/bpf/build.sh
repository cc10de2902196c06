#!/bin/bash
# Builds every *.bpf.c of pktgen/bpf and bench/bpf into the committed *.bpf.o, the same bytes
# on every machine with clang 14.   build.sh          rebuild
#                                   build.sh --check  compare with what is committed, change nothing
set -euo pipefail
cd "$(dirname "$0")/../.."

check=0
case "${1:-}" in
--check) check=1 ;;
"") ;;
*) echo "usage: build.sh [--check]" >&2; exit 2 ;;
esac
for tool in clang-14 llvm-strip-14; do
	command -v "$tool" >/dev/null || { echo "build.sh: $tool not found: apt-get install clang-14 llvm-14" >&2; exit 1; }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
stale=0
for source in pktgen/bpf/*.bpf.c bench/bpf/*.bpf.c; do
	name=$(basename "$source" .c)
	object=${source%.c}.o
	# In the source's directory and with mapped paths, so that no path gets into the object.
	(
		cd "$(dirname "$source")"
		clang-14 -target bpfel -mcpu=v3 -O2 -g -Wall -Werror -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
			-c "$name.c" -o "$scratch/$name.o"
	)
	# BTF stays (the loader needs it for .maps), DWARF goes.
	llvm-strip-14 -g "$scratch/$name.o"
	if ((!check)); then
		cp "$scratch/$name.o" "$object"
	elif ! cmp -s "$scratch/$name.o" "$object"; then
		echo "build.sh: $object is not what $source compiles to: run pktgen/bpf/build.sh and commit it" >&2
		stale=1
	fi
done
exit $stale
