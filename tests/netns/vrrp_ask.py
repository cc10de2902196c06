"""Asks http://ADDRESS/ every few milliseconds, each time on a new connection,
until stdin ends, and prints a JSON object about it: who answered how often, how
many failed, and for each change of the answering server how long nobody did.
The first answer is said on stderr.

usage: vrrp_ask.py ADDRESS [MILLISECONDS]
"""

import asyncio
import json
import sys
import time

ADDRESS = sys.argv[1]
INTERVAL = float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 0.005
# Shorter than the kernel's second SYN, so that an answer is never one to a repetition.
PATIENCE = 0.5
answers, failures = [], 0


async def ask():
    global failures
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(ADDRESS, 80)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
        if not answers:
            print("answered", file=sys.stderr, flush=True)
        answers.append((time.monotonic(), answer.split()[-1].decode()))
    except (OSError, TimeoutError, IndexError):
        failures += 1


async def main():
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    tasks = set()
    due = time.monotonic()
    while not over.done():
        task = asyncio.create_task(ask())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += INTERVAL
        await asyncio.sleep(max(0, due - time.monotonic()))
    await asyncio.gather(*tasks)
    answers.sort()
    changes = [
        {"from": old[1], "to": new[1], "milliseconds": round((new[0] - old[0]) * 1000)}
        for old, new in zip(answers, answers[1:])
        if old[1] != new[1]
    ]
    names = [name for _, name in answers]
    served = {name: names.count(name) for name in dict.fromkeys(names)}
    print(json.dumps({"served": served, "failed": failures, "changes": changes}))


asyncio.run(main())
