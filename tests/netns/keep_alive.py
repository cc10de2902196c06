"""Holds HTTP connections open and uses each four times a second until SIGTERM.

Prints `open` once all are; exits with 1 at the first that breaks, is answered
by another real server than before, or is not answered within 3 s. Those are
seconds in which this process could run: a machine that stands still for a
moment is not the director's fault.
"""

import argparse
import asyncio
import signal
import sys

arguments = argparse.ArgumentParser()
arguments.add_argument("address")
arguments.add_argument("port", type=int)
arguments.add_argument("--connections", type=int, default=1)
given = arguments.parse_args()

REQUEST = f"GET / HTTP/1.1\r\nHost: {given.address}\r\n\r\n".encode()
TICK, PATIENCE = 0.1, 3.0
requests = 0


async def request(reader, writer):
    """The body of one answer."""
    global requests
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    requests += 1
    return await reader.readexactly(int(fields["Content-Length"]))


async def answer(reader, writer):
    """The body of one answer, or TimeoutError."""
    task = asyncio.create_task(request(reader, writer))
    for _ in range(int(PATIENCE / TICK)):
        done, _ = await asyncio.wait([task], timeout=TICK)
        if done:
            return task.result()
    task.cancel()
    raise TimeoutError(f"no answer in {PATIENCE} s")


async def use(reader, writer, first):
    """Returns what went wrong, if ever anything does."""
    port = writer.get_extra_info("sockname")[1]
    while True:
        await asyncio.sleep(0.25)
        try:
            name = await answer(reader, writer)
        except (OSError, EOFError) as error:
            return f"port {port}: {error!r}"
        if name != first:
            return f"port {port}: {first} became {name}"


async def main():
    streams = []
    for _ in range(given.connections):
        reader, writer = await asyncio.open_connection(given.address, given.port)
        streams.append((reader, writer, await request(reader, writer)))
    print("open", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    users = [asyncio.create_task(use(*stream)) for stream in streams]
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *users], return_when=asyncio.FIRST_COMPLETED)
    print(f"{requests} requests on {len(users)} connections")
    broken = [task.result() for task in done if task is not stopped]
    print(*broken, sep="\n", end="")
    for task in users:
        task.cancel()
    return 1 if broken else 0


sys.exit(asyncio.run(main()))
