#!/bin/bash
# Every check of the project, the same on a laptop and in CI.
#
#   ./ci.sh             all steps
#   ./ci.sh STEP…       only these
#   ./ci.sh --list      the steps and what they check
#
# A failed step does not stop the ones after it. The last line is `N passed, N failed`, with
# `, N skipped` if any were; the exit status is 1 if a step failed, 2 for a wrong command line.
#
# As root on Debian, missing packages are installed first. A step that cannot run (no root, no
# package) is skipped and says why; with CI=true that is a failure, so that nothing passes unseen.
#
# CI_FAIL=STEP replaces that step by `false`: tests/ci_selftest.sh uses it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export CARGO_INCREMENTAL=0 CARGO_TERM_PROGRESS_WHEN=never

# What the steps run, and what tests/netns/run is told to run.
APPLIANCE=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/release/appliance
export APPLIANCE

readonly MAX_LINES=600   # no source file is longer
readonly FUZZ_SECONDS=3  # for each target
readonly STEP_LIMIT=1800 # seconds until a step that hangs is ended
readonly SKIPPED=77      # exit status of a step that cannot run here

readonly STEPS=(
	"format       the code is formatted"
	"files        no source file is longer than $MAX_LINES lines, or binary"
	"selftest     this script and bench/budget fail when they should"
	"bpf          the committed BPF objects are what their sources compile to"
	"clippy       no lint is broken, in any target"
	"docs         the API documentation builds without a warning"
	"bench        every target builds, the bench crate and its C libraries too"
	"unit         unit tests and documentation tests"
	"conformance  packet cases, AF_XDP on veth, commands, documents: all integration tests"
	"fuzz         each fuzz target survives $FUZZ_SECONDS seconds"
	"release      the binaries that users run build"
	"budget       no forwarding method takes 3 % more instructions than bench/instructions.tsv says"
	"configs      every file in configs/ passes 'appliance check', or import"
	"netns        real traffic, real nginx and curl in network namespaces"
	"lab          'appliance lab' with dr.toml, nat.toml, tun.toml, ha-pair.toml: the README's commands"
)

# --- The steps -----------------------------------------------------------------------------------
# Each runs in its own process by `bash ci.sh --inside STEP`, with set -e in force.

step_format() {
	cargo fmt --all --check
}

step_files() {
	local file lines bad=0
	local sources=(find . \( -name target -o -name .git -o -name __pycache__ \) -prune -o -type f
		\( -name '*.rs' -o -name '*.c' -o -name '*.sh' -o -path './tests/netns/*' \))
	while read -r lines file; do
		if ((lines > MAX_LINES)); then
			echo "$file: $lines lines; split it, $MAX_LINES is the most"
			bad=1
		fi
	done < <("${sources[@]}" -exec wc -l {} \;)
	while read -r file; do
		echo "$file: has a NUL byte, with which git and grep take it for a binary file"
		bad=1
	done < <("${sources[@]}" -exec grep --files-with-matches --text --perl-regexp '\x00' {} +)
	return "$bad"
}

step_selftest() {
	tests/ci_selftest.sh
	tests/budget_selftest.sh
}

step_bpf() {
	need clang-14 llvm-strip-14
	local build
	for build in */bpf/build.sh; do
		echo "$build --check"
		"$build" --check
	done
}

step_clippy() {
	cargo clippy "${WORKSPACE[@]}" --all-targets -- --deny warnings
}

step_docs() {
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" cargo doc "${WORKSPACE[@]}" --no-deps --document-private-items
}

step_bench() {
	can_build_bench || skip "the crates bench and fuzz compile C and C++: apt-get install ${BENCH_PACKAGES[*]}"
	# All targets, so that the tests after this step are built with the same features, once.
	cargo build --workspace --all-targets
}

step_unit() {
	# Not --bins: that runs fuzz targets, too, until something fails.
	without_leftovers cargo test "${WORKSPACE[@]}" --lib --bin appliance --bin pktgen
	cargo test "${WORKSPACE[@]}" --doc
}

step_conformance() {
	without_leftovers cargo test "${WORKSPACE[@]}" --test '*'
}

step_fuzz() {
	tests/fuzz/run.sh --seconds "$FUZZ_SECONDS"
}

step_release() {
	cargo build --release
}

step_budget() {
	need valgrind
	cargo build --release --quiet
	bench/budget
}

step_configs() {
	cargo build --release --quiet
	local config
	for config in configs/*.toml; do
		"$APPLIANCE" check "$config"
	done
	local toml
	toml=$(mktemp --suffix .toml)
	for config in configs/keepalived/*.conf; do
		"$APPLIANCE" import "$config" > "$toml"
		"$APPLIANCE" check "$toml"
	done
	rm "$toml"
}

step_netns() {
	need_namespaces
	cargo build --release --quiet
	without_leftovers tests/netns/run
}

step_lab() {
	need_namespaces
	cargo build --release --quiet
	local file
	for file in dr nat ha-pair; do
		without_leftovers "$APPLIANCE" lab "configs/$file.toml"
	done
	# That its tunnels end; the rest of it is as with DR.
	without_leftovers "$APPLIANCE" lab --script none configs/tun.toml
}

# --- What steps are made of ----------------------------------------------------------------------

readonly BENCH_PACKAGES=(clang g++ m4 libelf-dev libclang-dev pkg-config)

packages_of() {
	case "$1" in
	bpf) echo clang-14 llvm-14 ;;
	clippy | docs | bench) echo "${BENCH_PACKAGES[@]}" ;;
	unit | conformance) echo "${BENCH_PACKAGES[@]}" tshark keepalived openssl ;;
	fuzz) echo g++ ;;
	budget) echo valgrind ;;
	netns | lab)
		echo nginx-light curl iproute2 ethtool tcpdump tshark iputils-ping iputils-arping \
			socat netcat-openbsd valgrind jq python3 procps keepalived \
			openssl dnsmasq-base exim4-daemon-light mariadb-server-core mariadb-client-core
		;;
	esac
}

can_build_bench() {
	command -v clang g++ m4 pkg-config >/dev/null && pkg-config --exists libelf zlib
}

# skip WHY: ends the step as skipped.
skip() {
	echo "skipped: $1"
	echo "$1" >"$CI_SCRATCH/skipped"
	exit "$SKIPPED"
}

need() {
	local command
	for command; do
		command -v "$command" >/dev/null || skip "$command is not installed"
	done
}

need_namespaces() {
	[[ $EUID == 0 ]] || skip "network namespaces need root"
	unshare --net true 2>/dev/null || skip "this machine does not allow network namespaces"
	need ip ethtool nginx curl
}

# Runs a command; fails if it does, or if it leaves a namespace, a link or a process of ours.
without_leftovers() {
	local before after status=0
	before=$(traces)
	"$@" || status=$?
	after=$(traces)
	if [[ $before != "$after" ]]; then
		echo "$1 left something behind (<) or took something away (>):"
		diff <(echo "$after") <(echo "$before") || true
		return 1
	fi
	return "$status"
}

traces() {
	command -v ip >/dev/null || return 0
	ip netns list | sed 's/ .*//; s/^/namespace /' | sort
	ip -oneline link | awk '{ print "link", $2, /prog\/xdp|xdpgeneric/ ? "with XDP" : "" }' | sort
	local name
	for name in appliance pktgen; do
		pgrep --exact --list-name "$name" | sed 's/^/process /' || true
	done
}

# --- Packages ------------------------------------------------------------------------------------

# Installs what the given steps need and Debian has; says what is missing where it cannot.
install_packages() {
	local step package missing=()
	command -v dpkg-query >/dev/null || return 0
	for package in $(for step; do packages_of "$step"; done | tr ' ' '\n' | sort --unique); do
		dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	if [[ $EUID != 0 ]]; then
		echo "some steps will be skipped without: apt-get install ${missing[*]}"
		return 0
	fi
	echo "== packages: ${missing[*]}"
	(
		# A package's own service (nginx) must not start: it would take port 80 of this machine.
		policy=/usr/sbin/policy-rc.d
		saved=$CI_SCRATCH/policy-rc.d
		[[ ! -e $policy ]] || mv "$policy" "$saved"
		trap 'rm -f "$policy"; [[ ! -e $saved ]] || mv "$saved" "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod +x "$policy"
		export DEBIAN_FRONTEND=noninteractive
		apt-get update --quiet=2 &&
			apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" </dev/null
	) || echo "apt-get failed; steps that need these packages will say so"
}

# --- The run -------------------------------------------------------------------------------------

# run_step NAME: runs it, and sets `result` to ok, FAILED or `skipped: why`.
run_step() {
	local status=0
	rm -f "$CI_SCRATCH/skipped"
	# In the background, so that Ctrl-C reaches the trap at once; but a shell makes its background
	# processes ignore SIGINT, and tests send it.
	env --default-signal=INT,QUIT timeout --kill-after=20 "$STEP_LIMIT" \
		bash ci.sh --inside "$1" </dev/null &
	child=$!
	wait "$child" || status=$?
	child=
	case "$status" in
	0) result=ok ;;
	"$SKIPPED")
		result="skipped: $(cat "$CI_SCRATCH/skipped")"
		[[ ${CI:-} != true ]] || result="FAILED, $result"
		;;
	124) result="FAILED after $STEP_LIMIT s without an end" ;;
	*) result="FAILED, status $status" ;;
	esac
}

inside() {
	if can_build_bench; then
		WORKSPACE=(--workspace)
	else
		WORKSPACE=(--workspace --exclude bench --exclude fuzz)
		echo "without the crates bench and fuzz: apt-get install ${BENCH_PACKAGES[*]}"
	fi
	readonly WORKSPACE
	[[ ${CI_FAIL:-} != "$1" ]] || false
	"step_$1"
}

main() {
	local names=() selected=() step result start passed=0 failed=0 skipped=0 table=""
	for step in "${STEPS[@]}"; do names+=("${step%% *}"); done
	if [[ ${1:-} == --list ]]; then
		printf '%s\n' "${STEPS[@]}"
		return
	fi
	for step; do
		if [[ " ${names[*]} " != *" $step "* ]]; then
			echo "ci.sh: no step '$step'; there are: ${names[*]}" >&2
			return 2
		fi
		selected+=("$step")
	done
	((${#selected[@]})) || selected=("${names[@]}")
	command -v cargo >/dev/null || {
		echo "ci.sh: cargo not found: install Rust by rustup; rust-toolchain.toml names the version" >&2
		return 2
	}

	CI_SCRATCH=$(mktemp --directory)
	export CI_SCRATCH
	child=
	trap 'rm -rf "$CI_SCRATCH"' EXIT
	trap '[[ -z $child ]] || kill "$child"; exit 130' INT TERM

	install_packages "${selected[@]}"
	for step in "${selected[@]}"; do
		printf '\n== %s\n' "$step"
		start=$SECONDS
		run_step "$step"
		table+=$(printf '%-12s %4d s  %s' "$step" $((SECONDS - start)) "$result")$'\n'
		case "$result" in
		ok) passed=$((passed + 1)) ;;
		FAILED*) failed=$((failed + 1)) ;;
		*) skipped=$((skipped + 1)) ;;
		esac
	done

	printf '\n%s\n%d passed, %d failed' "$table" "$passed" "$failed"
	((skipped == 0)) || printf ', %d skipped' "$skipped"
	echo
	((failed == 0))
}

if [[ ${1:-} == --inside ]]; then
	inside "$2"
else
	main "$@"
fi
