#!/bin/bash
# The Debian package on a clean Debian: builds it, installs it in a new root, starts it as the unit would
# (its user, its capabilities, the notification), and removes it without a trace.
#
#   tests/deb.sh [--no-build] [--systemd]
#
#   --no-build   target/release has the programs already
#   --systemd    the root is this machine's own, with a layer above it that takes all that is written, and
#                a systemd of its own runs there: the unit itself is started, with its sandbox, and
#                all in seconds without a network. Less clean: what this machine has is there, too.
#
# Not part of ci.sh: it needs cargo-deb, which Debian does not have and which takes minutes to build, and
# without --systemd the network for a Debian root (mmdebstrap), and about a minute.
# As root; prints one line for each step, and removes everything that it made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=()
systemd=
for option; do
	case "$option" in
	--no-build) build=(--no-build) ;;
	--systemd) systemd=/lib/systemd/systemd ;;
	*) echo "deb.sh: no option '$option': there are --no-build and --systemd" >&2 && exit 2 ;;
	esac
done
[[ $EUID == 0 ]] || { echo "deb.sh: run it as root" >&2; exit 1; }
for tool in ${systemd:-mmdebstrap} cargo-deb ip setpriv socat curl; do
	command -v "$tool" >/dev/null || { echo "deb.sh: $tool is not installed" >&2; exit 1; }
done

work=$(mktemp -d)
root=$work/root
name=deb$$
running=
init=
clean_up() {
	[[ -z $running ]] || kill "$running" 2>/dev/null || true
	if [[ -n $init ]]; then
		kill -9 "$init" 2>/dev/null || true
		wait 2>/dev/null || true
		umount "$root" "$work" || true
	fi
	ip netns delete "$name" 2>/dev/null || true
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT

fail() {
	echo "FAILED: $*" >&2
	[[ ! -s $work/log ]] || cat "$work/log" >&2
	exit 1
}

# mounts ROOT: what a running system has mounted, for the calling process and its children. The device of
# taps is everybody's, as udev has it.
mounts() {
	mount -t proc proc "$1/proc"
	mount -t tmpfs -o mode=755 tmpfs "$1/dev"
	mkdir "$1/dev/net"
	local device name major minor
	for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "net/tun 10 200"; do
		read -r name major minor <<<"$device"
		mknod --mode 666 "$1/dev/$name" c "$major" "$minor"
	done
}

# inside COMMAND…: in the new root; without a systemd there, with mounts of its own for as long as it runs.
inside() {
	if [[ -n $init ]]; then
		nsenter --target "$init" --mount --pid --uts --ipc --net --cgroup --root --wd "$@"
	else
		unshare --mount --propagation private bash -c "set -e; $(declare -f mounts)"'
			mounts "$0"
			mount --rbind /sys "$0/sys"
			exec chroot "$0" "$@"' "$root" "$@"
	fi
}

# A root above this machine's own, with a systemd that starts nothing but what is asked for. What would
# change the kernel's settings or devices is left out.
boot() {
	mount -t tmpfs tmpfs "$work"
	mkdir "$work/upper" "$work/work" "$root"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$root"
	rm -rf "$root"/etc/systemd/system/*.wants
	local unit
	for unit in systemd-{udevd,udev-trigger,sysctl,modules-load,sysusers,remount-fs}.service systemd-udevd-{control,kernel}.socket; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	unshare --pid --fork --kill-child --mount --propagation private --cgroup --ipc --uts --net \
		bash -c "set -e; $(declare -f mounts)"'
		mounts "$0"
		mount -t sysfs sysfs "$0/sys"
		mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
		for directory in run tmp; do mount -t tmpfs tmpfs "$0/$directory"; done
		exec chroot "$0" /usr/bin/env -i container=deb PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			/lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=false' \
		"$root" >"$work/log" 2>&1 &
	local outer=$! tries
	for ((tries = 0; tries < 100; tries++)); do
		init=$(pgrep --parent "$outer" systemd) && [[ $(inside systemctl is-system-running) == running ]] && return
		sleep 0.1
	done 2>/dev/null
	fail "systemd does not run"
}

# Every file that is there, but for what the package manager writes down for itself.
files() {
	(cd "$([[ -n $init ]] && echo "$work/upper" || echo "$root")" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./var/lib/dpkg \
		-o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o -path ./tmp -o -path './etc/*-' \
		-o -path ./run/adduser -o -path ./var/lib/systemd \
		-o -path ./var/lib/PackageKit -o -path './var/tmp/systemd-private-*' \) -prune -o -print |
		# Above another root, only what differs from it.
		while read -r file; do
			[[ -n $init && -d $file && -d /$file ]] || { [[ -n $init ]] && cmp -s "$file" "/$file"; } || echo "$file"
		done | sort)
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

packaging/build-deb.sh "${build[@]}" >"$work/log" 2>&1 || fail "the package does not build"
package=$(ls -t "${CARGO_TARGET_DIR:-target}"/debian/appliance_*.deb | head -n 1)
step "built $(basename "$package"), $(($(stat --format %s "$package") / 1024)) KiB"

if [[ -n $systemd ]]; then
	package=$(realpath "$package")
	boot
	step "started a systemd"
else
	mmdebstrap --quiet --variant=apt --include=adduser "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" \
		>"$work/log" 2>&1 || fail "no Debian root"
	step "made a clean root"
fi
: >"$work/log"

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
  MISC_CHECK = { misc_path = "/bin/true" }
END
cable() {
	"$@" ip link add eth0 type veth peer name peer0
	for link in lo eth0 peer0; do "$@" ip link set "$link" up; done
	"$@" ip address add 192.168.1.2/24 dev eth0
}
# serves NETNS COMMAND…: run there, that shows that it does.
serves() {
	[[ $("$@" curl --silent http://127.0.0.1:9180/healthz) == ok ]] || fail "no healthz"
	grep -q 192.168.1.100 <<<"$("$@" ip address show dev eth0)" || fail "the virtual address is not there"
}
complains() { grep -E "WARN|ERROR" "$1" | grep -vE "zero-copy|next hop|192.168.1.101"; }

# The unit itself. What it tracks is a process of another user.
as_unit() {
	cat >>"$root/etc/appliance/appliance.toml" <<'END'
[[vrrp_track_process]]
name = "init"
process = "systemd"
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
virtual_ipaddress = ["192.168.1.102/24"]
track_process = ["init weight 0"]
END
	inside systemd-analyze verify --man=no appliance.service >"$work/log" 2>&1 || fail "systemd-analyze verify"
	[[ ! -s $work/log ]] || fail "systemd-analyze verify"
	cable inside
	inside systemctl start appliance >"$work/log" 2>&1 || { inside journalctl --no-pager >"$work/log"; fail "systemctl start"; }
	serves inside
	local main
	main=$(inside systemctl show --property MainPID --value appliance)
	inside cat "/proc/$main/status" >"$work/log"
	grep -q "Uid:.$(inside id -u appliance)" "$work/log" || fail "it does not run as its user"
	grep -q "Seccomp:.2" "$work/log" || fail "its system calls are not filtered"
	step "runs in the unit's sandbox, exposure $(inside systemd-analyze security --no-pager appliance |
		sed -n 's/.*level for appliance.service: \([0-9.]*\).*/\1/p') of 10"
	inside systemctl reload appliance || fail "systemctl reload"
	inside appliance show health --json >"$work/log" || fail "no socket where commands look"
	sleep 1.5
	local told
	told=$(inside systemctl show --property WatchdogTimestampMonotonic --value appliance)
	((told > 0)) || fail "the watchdog is not told"
	inside appliance show vrrp --json >"$work/log"
	! grep -q FAULT "$work/log" || fail "it does not find a process of another user"
	inside systemctl stop appliance || fail "systemctl stop"
	[[ $(inside systemctl show --property Result --value appliance) == success ]] || fail "it did not end well"
	inside journalctl --no-pager --unit appliance >"$work/log"
	! complains "$work/log" || fail "warnings"
	! inside ls -d /run/appliance /run/appliance.sock 2>"$work/log" || fail "something is left in /run"
	step "reloaded and stopped"
}

# As the unit starts it, in a network namespace.
as_the_unit_would() {
	unit=$root/lib/systemd/system/appliance.service
	capabilities=$(sed -n 's/^AmbientCapabilities=//p' "$unit" | tr 'A-Z' 'a-z' | sed 's/cap_//g')
	listed=$(for capability in $capabilities; do printf '+%s,' "$capability"; done)
	ip netns add "$name"
	cable ip netns exec "$name"
	mkdir -p "$root/run/appliance"
	inside chown appliance: /run/appliance
	socat -u "UNIX-RECV:$root/run/notify,mode=777" "CREATE:$work/notified" &
	running=$!
	while [[ ! -S $root/run/notify ]]; do sleep 0.05; done
	user=$(inside id -u appliance)
	group=$(inside id -g appliance)
	ip netns exec "$name" bash -c "$(declare -f inside mounts); root=$root init=; inside env NOTIFY_SOCKET=/run/notify \
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
	serves ip netns exec "$name"
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
	! complains "$work/log" || fail "warnings"
	kill "$running" && wait "$running" 2>/dev/null || true
	running=
	# As systemd does; it is empty, or the appliance left its socket.
	rmdir "$root/run/appliance" || fail "something is left in /run/appliance"
	rm -f "$root/run/notify"
	step "reloaded and stopped"
}

if [[ -n $systemd ]]; then as_unit; else as_the_unit_would; fi

inside apt-get remove --yes --quiet=2 appliance >"$work/log" 2>&1 || fail "apt-get remove"
[[ -e $root/etc/appliance/appliance.toml ]] || fail "remove took the configuration away"
inside apt-get purge --yes --quiet=2 appliance >"$work/log" 2>&1 || fail "apt-get purge"
files >"$work/after"
diff "$work/before" "$work/after" >"$work/log" || fail "purge left (>) or took (<) something"
step "purged without a trace"
