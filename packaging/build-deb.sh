#!/bin/bash
# Builds target/debian/appliance_VERSION_ARCH.deb. Needs cargo-deb: cargo install cargo-deb
#
#   packaging/build-deb.sh [--no-build]     with it, target/release has the programs already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo-deb >/dev/null || {
	echo "build-deb.sh: cargo-deb is not installed: cargo install cargo-deb" >&2
	exit 1
}
target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
[[ ${1:-} == --no-build ]] || cargo build --release --package control --package pktgen

# What is made of the programs themselves, where control/Cargo.toml expects it.
made=target/package
rm -rf "$made"
mkdir -p "$made"
for program in appliance pktgen; do
	install -D --strip "$target/release/$program" "$made/bin/$program"
	"$target/release/$program" man "$made/man"
	"$target/release/$program" completions bash > "$made/$program.bash"
	"$target/release/$program" completions zsh > "$made/_$program"
	"$target/release/$program" completions fish > "$made/$program.fish"
done
gzip --best --no-name "$made"/man/*
ln -s ../../bin/appliance "$made/ipvsadm"

cargo deb --package control --no-build --no-strip
