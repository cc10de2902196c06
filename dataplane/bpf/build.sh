#!/bin/sh
# Builds steer.bpf.o, which is committed, so that users need no clang.
#
#   build.sh          builds it in place
#   build.sh --check  builds it elsewhere and compares: exit 1 when the committed
#                     object is not what the source gives
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

# Compiles $here/steer.bpf.c in directory $1. BTF is kept, because the maps are
# described in it; DWARF is not.
build() {
    (
        cd "$1"
        clang-14 -target bpfel -mcpu=v3 -O2 -g -Wall -Wextra -Werror \
            -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
            -c steer.bpf.c -o steer.bpf.o
        llvm-strip-14 -g steer.bpf.o
    )
}

case "${1-}" in
--check)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp "$here/steer.bpf.c" "$work"
    build "$work"
    if ! cmp "$work/steer.bpf.o" "$here/steer.bpf.o"; then
        echo "$0: steer.bpf.o is not built from steer.bpf.c: run $0 and commit the result" >&2
        exit 1
    fi
    ;;
"")
    build "$here"
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
