"""Answers every HTTP request on port 80 with a name: vrrp_serve.py NAME."""

import asyncio
import sys

ANSWER = f"HTTP/1.0 200 OK\r\n\r\n{sys.argv[1]}\n".encode()


async def serve(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, None, 80)
    await server.serve_forever()


asyncio.run(main())
