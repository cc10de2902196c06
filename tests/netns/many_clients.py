"""Clients of the control socket as they should not be, for some seconds, then one line in JSON.

Of every four, one asks again and again, one reads a byte at a time, one sends garbage, and one asks for
everything and never reads.

    many_clients.py SOCKET --clients 200 --seconds 3
"""

import argparse
import asyncio
import json
import os
import time


def request(what):
    return f"GET /api/v1/{what} HTTP/1.1\r\nhost: a\r\n\r\n".encode()


class Crowd:
    def __init__(self, socket, seconds):
        self.socket = socket
        self.end = time.monotonic() + seconds
        self.answers = 0
        self.refused = 0
        self.bytes_read_slowly = 0

    async def connected(self, talk):
        """Talks over one connection after the other until the time is over."""
        while time.monotonic() < self.end:
            try:
                reader, writer = await asyncio.open_unix_connection(self.socket, limit=2048)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                rest = self.end - time.monotonic()
                await asyncio.wait_for(talk(reader, writer), max(rest, 0))
            except (OSError, asyncio.TimeoutError):
                pass
            writer.transport.abort()

    async def fast(self, reader, writer):
        writer.write(request("services"))
        answer = await reader.read()
        self.answers += answer.startswith(b"HTTP/1.1 200")

    async def slow(self, reader, writer):
        writer.write(request("connections"))
        while await reader.read(1):
            self.bytes_read_slowly += 1
            await asyncio.sleep(0.02)

    async def garbage(self, reader, writer):
        writer.write(os.urandom(4096) + b"\r\n\r\n")
        answer = await reader.read()
        self.refused += not answer.startswith(b"HTTP/1.1 2")

    async def deaf(self, reader, writer):
        writer.write(request("services"))
        await asyncio.sleep(60)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    crowd = Crowd(arguments.socket, arguments.seconds)
    kinds = [crowd.fast, crowd.slow, crowd.garbage, crowd.deaf]
    each = [crowd.connected(kinds[number % 4]) for number in range(arguments.clients)]
    await asyncio.gather(*each)
    said = {"answers": crowd.answers, "refused": crowd.refused, "slow": crowd.bytes_read_slowly}
    print(json.dumps(said))


asyncio.run(main())
