#!/bin/bash
# The Debian package on a clean Debian: builds it, installs it in a new root, starts it as the unit would
# (its user, its capabilities, the notification), and removes it without a trace.
#
#   tests/deb.sh [--no-build]     with it, target/release has the programs already
#
# Not part of ci.sh: it needs the network for a Debian root (mmdebstrap), cargo-deb, and about a minute.
# As root; prints one line for each step, and removes everything that it made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $EUID == 0 ]] || { echo "deb.sh: run it as root" >&2; exit 1; }
for tool in mmdebstrap cargo-deb ip setpriv socat curl; do
	command -v "$tool" >/dev/null || { echo "deb.sh: $tool is not installed" >&2; exit 1; }
done

work=$(mktemp -d)
root=$work/root
name=deb$$
running=
clean_up() {
	[[ -z $running ]] || kill "$running" 2>/dev/null || true
	ip netns delete "$name" 2>/dev/null || true
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT

fail() {
	echo "FAILED: $*" >&2
	[[ ! -s $work/log ]] || cat "$work/log" >&2
	exit 1
}

# inside COMMAND…: in the new root, with /proc, /sys and /dev of its own for as long as it runs. The
# device of taps is everybody's, as udev has it.
inside() {
	unshare --mount --propagation private bash -c '
		set -e
		mount -t proc proc "$0/proc"
		mount --rbind /sys "$0/sys"
		mount -t tmpfs -o mode=755 tmpfs "$0/dev"
		mkdir "$0/dev/net"
		for device in "null 1 3" "zero 1 5" "random 1 8" "urandom 1 9" "tty 5 0" "net/tun 10 200"; do
			read -r name major minor <<<"$device"
			mknod --mode 666 "$0/dev/$name" c "$major" "$minor"
		done
		exec chroot "$0" "$@"' "$root" "$@"
}

# Every file that is there, but for what the package manager writes down for itself.
files() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./var/lib/dpkg \
		-o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o -path ./tmp -o -path './etc/*-' \
		-o -path ./run/adduser \) \
		-prune -o -print | sort)
	grep -c . "$root/etc/passwd" "$root/etc/group"
}

# The process id of the appliance in the network namespace.
pid() {
	local pid
	for pid in $(ip netns pids "$name"); do
		[[ $(cat "/proc/$pid/comm" 2>/dev/null) != appliance ]] || echo "$pid"
	done
}

start=$SECONDS
step() {
	echo "$1 ($((SECONDS - start)) s)"
}

packaging/build-deb.sh "$@" >"$work/log" 2>&1 || fail "the package does not build"
package=$(ls -t "${CARGO_TARGET_DIR:-target}"/debian/appliance_*.deb | head -n 1)
step "built $(basename "$package"), $(($(stat --format %s "$package") / 1024)) KiB"

mmdebstrap --quiet --variant=apt --include=adduser "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" \
	>"$work/log" 2>&1 || fail "no Debian root"
: >"$work/log"
step "made a clean root"

files >"$work/before"
cp "$package" "$root/appliance.deb"
inside apt-get install --yes --quiet=2 --no-install-recommends /appliance.deb >"$work/log" 2>&1 ||
	fail "apt-get install"
rm "$root/appliance.deb"
inside appliance --version >/dev/null || fail "appliance does not run"
inside pktgen --version >/dev/null || fail "pktgen does not run"
for file in usr/share/man/man1/appliance-run.1.gz usr/share/man/man1/pktgen-tx.1.gz lib/systemd/system/appliance.service \
	usr/share/bash-completion/completions/appliance; do
	[[ -s $root/$file ]] || fail "$file is not there"
done
[[ $(stat --format '%a %G' "$root/etc/appliance/appliance.toml") == "640 "* ]] || fail "others may read the configuration"
status=0
inside /usr/lib/appliance/ipvsadm -Ln >"$work/log" 2>&1 || status=$?
grep -q "no appliance answers" "$work/log" || fail "ipvsadm is not ours: status $status"
step "installed"

# As the unit starts it, in a network namespace.
unit=$root/lib/systemd/system/appliance.service
capabilities=$(sed -n 's/^AmbientCapabilities=//p' "$unit" | tr 'A-Z' 'a-z' | sed 's/cap_//g')
listed=$(for capability in $capabilities; do printf '+%s,' "$capability"; done)
ip netns add "$name"
ip -netns "$name" link add eth0 type veth peer name peer0
for link in lo eth0 peer0; do ip -netns "$name" link set "$link" up; done
ip -netns "$name" address add 192.168.1.2/24 dev eth0
cat >>"$root/etc/appliance/appliance.toml" <<'END'
[[interface]]
name = "eth0"
[[virtual_server]]
address = "192.168.1.100:80"
protocol = "TCP"
lb_algo = "rr"
lb_kind = "DR"
  [[virtual_server.real_server]]
  address = "192.168.1.101:80"
END
mkdir -p "$root/run/appliance"
inside chown appliance: /run/appliance
socat -u "UNIX-RECV:$root/run/notify,mode=777" "CREATE:$work/notified" &
running=$!
while [[ ! -S $root/run/notify ]]; do sleep 0.05; done
user=$(inside id -u appliance)
group=$(inside id -g appliance)
ip netns exec "$name" bash -c "$(declare -f inside); root=$root; inside env NOTIFY_SOCKET=/run/notify \
	WATCHDOG_USEC=10000000 setpriv --reuid $user --regid $group --clear-groups --no-new-privs \
	--inh-caps=-all,${listed%,} --ambient-caps=-all,${listed%,} --bounding-set=-all,${listed%,} \
	/usr/bin/appliance run --socket /run/appliance/appliance.sock /etc/appliance/appliance.toml" >"$work/log" 2>&1 &
appliance=$!
for ((tries = 0; tries < 200; tries++)); do
	grep -qs READY=1 "$work/notified" && break
	kill -0 "$appliance" 2>/dev/null || fail "it ended"
	sleep 0.1
done
grep -qs READY=1 "$work/notified" || fail "no READY=1 in 20 s"
grep -q "Uid:.$user" "/proc/$(pid)/status" || fail "it does not run as its user"
[[ $(ip netns exec "$name" curl --silent http://127.0.0.1:9180/healthz) == ok ]] || fail "no healthz"
ip -netns "$name" address show dev eth0 | grep -q 192.168.1.100 || fail "the virtual address is not there"
sleep 1.5
grep -q WATCHDOG=1 "$work/notified" || fail "the watchdog is not told"
step "runs as user $user with the unit's capabilities"
inside appliance reload --socket /run/appliance/appliance.sock >/dev/null || fail "reload"
grep -q RELOADING=1 "$work/notified" || fail "the reload is not told"
kill -TERM "$(pid)"
status=0
wait "$appliance" || status=$?
[[ $status == 0 ]] || fail "status $status after SIGTERM"
sleep 0.1
grep -q STOPPING=1 "$work/notified" || fail "the end is not told"
! grep -E "WARN|ERROR" "$work/log" | grep -vE "zero-copy|next hop|192.168.1.101" || fail "warnings"
kill "$running" && wait "$running" 2>/dev/null || true
running=
# As systemd does; it is empty, or the appliance left its socket.
rmdir "$root/run/appliance" || fail "something is left in /run/appliance"
rm -f "$root/run/notify"
step "reloaded and stopped"

inside apt-get remove --yes --quiet=2 appliance >"$work/log" 2>&1 || fail "apt-get remove"
[[ -e $root/etc/appliance/appliance.toml ]] || fail "remove took the configuration away"
inside apt-get purge --yes --quiet=2 appliance >"$work/log" 2>&1 || fail "apt-get purge"
files >"$work/after"
diff "$work/before" "$work/after" >"$work/log" || fail "purge left (>) or took (<) something"
step "purged without a trace"
