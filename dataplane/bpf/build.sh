#!/bin/sh
# Builds the BPF objects, which are committed, so that users need no clang.
#
#   build.sh          builds them in place
#   build.sh --check  builds them elsewhere and compares: exit 1 when a committed
#                     object is not what its source gives
#
# The same compiler gives the same bytes in any directory; hence the pinned
# clang-14 and llvm-strip-14 (Debian 12: apt-get install clang-14 llvm-14).
set -eu
here=$(cd "$(dirname "$0")" && pwd)

for tool in clang-14 llvm-strip-14; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: $tool not found: apt-get install clang-14 llvm-14" >&2
        exit 1
    fi
done

# Compiles the sources in directory $1. BTF is kept, because the maps are
# described in it; DWARF is not.
build() {
    (
        cd "$1"
        for source in *.bpf.c; do
            object=${source%.c}.o
            clang-14 -target bpfel -mcpu=v3 -O2 -g -Wall -Wextra -Werror \
                -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
                -c "$source" -o "$object"
            llvm-strip-14 -g "$object"
        done
    )
}

case "${1-}" in
--check)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp "$here"/*.bpf.c "$here"/*.h "$work"
    build "$work"
    for object in "$work"/*.bpf.o; do
        name=${object##*/}
        if ! cmp "$object" "$here/$name"; then
            echo "$0: $name is not built from its source: run $0 and commit the result" >&2
            exit 1
        fi
    done
    ;;
"")
    build "$here"
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
