"""Reads what `ip -oneline -tshort monitor address` wrote on two hosts, and prints for
how many milliseconds both had ADDRESS at the same time, at most.

usage: vrrp_overlap.py ADDRESS FILE FILE
"""

import sys
from datetime import datetime, timedelta

address, files = sys.argv[1], sys.argv[2:]
changes = []
for number, name in enumerate(files):
    for line in open(name):
        if f" {address}/" in line:
            time, change = line.split()[:2]
            changes.append((datetime.fromisoformat(time.strip("[]")), number, change != "Deleted"))
changes.sort()
if len(changes) < 2:
    sys.exit(f"{address} did not move: {changes}")
holders, since, longest = set(), None, timedelta(0)
for time, number, has_it in changes:
    (holders.add if has_it else holders.discard)(number)
    if len(holders) == 2 and since is None:
        since = time
    elif len(holders) < 2 and since is not None:
        longest, since = max(longest, time - since), None
if since is not None:
    sys.exit(f"both still have {address}")
print(round(longest / timedelta(milliseconds=1)))
