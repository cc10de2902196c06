"""500 reloads of random files, most of them right and some wrong.

The storm's first virtual server, and what it is forwarded to, is in every file and never
changes; everything else comes, changes and goes. Each answer must be the one that the file
deserves. In the middle and at the end stands the same quiet file: at both moments the process
must have the same descriptors and threads, and about the same memory.
"""

import argparse
import json
import os
import random
import socket
import sys
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("config")
arguments.add_argument("socket")
arguments.add_argument("pid", type=int)
arguments.add_argument("--vip", required=True)
arguments.add_argument("--interfaces", nargs="+", required=True)
arguments.add_argument("--reloads", type=int, default=500)
arguments.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
given = arguments.parse_args()
rng = random.Random(given.seed)
print(f"seed {given.seed}", flush=True)

UNCHANGED = f"""
[[virtual_server]]
address = "{given.vip}:80"
lb_algo = "rr"
lb_kind = "DR"
real_server = [{{ address = "10.77.0.101:80" }}, {{ address = "10.77.0.102:80" }}]
"""
ALGORITHMS = ["rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "lblc"]
CHECKS = ["", "", "TCP_CHECK = { connect_timeout = 1 }", "PING_CHECK = { }",
          'HTTP_GET = { url = [{ path = "/health", status_code = 200 }] }']
MISTAKES = ["wieght = 1", "[[virtual_server]]", "[unclosed", '[[interface]]\nname = "nowhere0"',
            '[[virtual_server]]\naddress = "10.77.0.300:80"\nlb_kind = "DR"',
            "[appliance.timeouts]\ntcp = -3", f"{UNCHANGED}"]


def real_server(number, kind, port):
    lines = ["  [[virtual_server.real_server]]",
             f'  address = "10.77.0.{number}:{port}"', f"  weight = {rng.randrange(6)}"]
    check = rng.choice(CHECKS)
    return lines + [f"  {check}"] * (check != "" and kind != "TUN")


def virtual_server(port):
    kind = rng.choice(["DR", "DR", "NAT", "TUN"])
    lines = ["[[virtual_server]]", f'address = "{given.vip}:{port}"', f'lb_kind = "{kind}"',
             f'protocol = "{rng.choice(["TCP", "UDP"])}"',
             f'lb_algo = "{rng.choice(ALGORITHMS)}"']
    if rng.random() < 0.3:
        lines.append(f"persistence_timeout = {rng.randrange(10, 300)}")
    servers = rng.sample(range(101, 111), rng.randrange(1, 6))
    if kind != "DR":
        servers = [server for server in servers if server > 102] or [110]
    return lines + [line for number in servers
                    for line in real_server(number, kind, 8080 if kind == "NAT" else port)]


def instance(number):
    return ["[[vrrp_instance]]", f'name = "VI_{number}"', f'interface = "{given.interfaces[0]}"',
            f"virtual_router_id = {number}", f"priority = {rng.randrange(1, 255)}",
            f"virtual_ipaddress = [\"10.77.0.{200 + number}/24\"]",
            'track_script = ["ask"]' if number == 1 else "garp_master_repeat = 1"]


def interfaces(names):
    return [line for name in names for line in ["[[interface]]", f'name = "{name}"']]


def random_file():
    first, *others = given.interfaces
    lines = ["[appliance]"]
    if rng.random() < 0.3:
        lines.append(f'tcp_midstream = "{rng.choice(["reset", "drop"])}"')
    if rng.random() < 0.3:
        lines.append(f'deny = ["198.51.{rng.randrange(100)}.0/24"]')
    if rng.random() < 0.3:
        lines += ["[appliance.timeouts]", f"udp = {rng.randrange(1, 300)}"]
    lines += interfaces([first, *(name for name in others if rng.random() < 0.1)])
    lines += ["[[vrrp_script]]", 'name = "ask"', 'script = "/bin/true"']
    for number in range(1, rng.randrange(1, 4)):
        lines += instance(number)
    for port in rng.sample(range(8000, 8040), rng.randrange(10)):
        lines += virtual_server(port)
    return "\n".join(lines) + UNCHANGED


def write(text):
    """As editors do: a reload never sees half a file."""
    with open(given.config + ".new", "w") as file:
        file.write(text)
    os.replace(given.config + ".new", given.config)


def ask(method, path):
    """Status and body of an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(given.socket)
        client.sendall(f"{method} {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def reload(text, right):
    write(text)
    status, body = ask("POST", "/api/v1/reload")
    if status != (200 if right else 422):
        sys.exit(f"a {'right' if right else 'wrong'} file got status {status}: {body.decode()}\n{text}")


def footprint():
    """Descriptors by kind, threads, resident KiB, when all of the storm has ended."""
    def look():
        process = f"/proc/{given.pid}"
        kinds = []
        for descriptor in os.listdir(f"{process}/fd"):
            try:
                kinds.append(os.readlink(f"{process}/fd/{descriptor}").split(":")[0])
            except FileNotFoundError:
                pass
        threads = sorted(open(f"{process}/task/{task}/comm").read().strip()
                         for task in os.listdir(f"{process}/task"))
        # Threads that wait for something end ten seconds after their last work.
        return sorted(kinds), [name for name in threads if not name.startswith("tokio")]
    reload("\n".join(interfaces(given.interfaces[:1])) + UNCHANGED, True)
    # Checks, probes and announcements under way end by themselves.
    time.sleep(1.5)
    descriptors, threads = look()
    with open(f"/proc/{given.pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return descriptors, threads, int(fields["VmRSS"].split()[0])


def storm(reloads):
    """The last right file."""
    times, wrong = [], 0
    for _ in range(reloads):
        text, right = random_file(), rng.random() < 0.8
        if not right:
            wrong += 1
            text += "\n" + rng.choice(MISTAKES) + "\n"
        begin = time.monotonic()
        reload(text, right)
        times.append(time.monotonic() - begin)
        if right:
            last = text
    times.sort()
    print(f"{reloads} reloads, {wrong} of wrong files: median {times[len(times) // 2] * 1e3:.1f} ms,"
          f" longest {times[-1] * 1e3:.1f} ms", flush=True)
    return last


# The same files again take no memory that they did not take before; but a thread
# that was never busy before takes an arena of the allocator, once. What leaks grows every time.
files = rng.getstate()
storm(given.reloads // 2)
for _ in range(4):
    before = footprint()
    rng.setstate(files)
    last = storm(given.reloads // 2)
    _, config = ask("GET", "/api/v1/config")
    after = footprint()
    print(f"{len(after[0])} descriptors, {len(after[1])} threads, {before[2]} KiB, then {after[2]} KiB")
    if before[:2] != after[:2]:
        sys.exit(f"leaked: before {before[:2]}, after {after[:2]}")
    if after[2] <= before[2] + 1024:
        break
else:
    sys.exit(f"memory grows with every {given.reloads // 2} reloads")
with open(given.config + ".running", "w") as file:
    file.write(json.loads(config)["toml"])
with open(given.config + ".last", "w") as file:
    file.write(last)
