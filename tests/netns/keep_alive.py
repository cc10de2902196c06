"""Holds HTTP connections open and uses each four times a second until SIGTERM.

Prints `open` once all are; exits with 1 at the first that breaks, is not
answered within 3 s, or is answered by another real server than before.
"""

import argparse
import asyncio
import signal

arguments = argparse.ArgumentParser()
arguments.add_argument("address")
arguments.add_argument("port", type=int)
arguments.add_argument("--connections", type=int, default=1)
given = arguments.parse_args()

REQUEST = f"GET / HTTP/1.1\r\nHost: {given.address}\r\n\r\n".encode()
requests = 0


async def request(reader, writer):
    """The body of one answer."""
    global requests
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    requests += 1
    return await reader.readexactly(int(fields["Content-Length"]))


async def use(number, reader, writer, first):
    try:
        while True:
            await asyncio.sleep(0.25)
            name = await asyncio.wait_for(request(reader, writer), 3)
            if name != first:
                raise ConnectionError(f"{first} became {name}")
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        raise SystemExit(f"connection {number} after {requests} requests of all: {error!r}")


async def main():
    streams = []
    for _ in range(given.connections):
        reader, writer = await asyncio.open_connection(given.address, given.port)
        streams.append((reader, writer, await request(reader, writer)))
    print("open", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    users = [asyncio.create_task(use(n, *stream)) for n, stream in enumerate(streams)]
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *users], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    print(f"{requests} requests on {len(users)} connections")


asyncio.run(main())
