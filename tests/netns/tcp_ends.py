"""How TCP connections end, by either side: tcp_ends.py serve PORT | ask ADDRESS PORT

`ask` half-closes and resets connections, has the server do the same, and checks what both ends saw.
The server tells what it saw to the next connection, so the client has to reach the same one again.
"""

import socket
import struct
import sys

MEGABYTE = bytes(range(256)) * 4096
PATIENCE = 5


def read_all(stream):
    """Until the other side says that it is done."""
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def reset(stream):
    """Closes by a RST (socket(7), SO_LINGER of no time)."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def serve_one(stream, last):
    """Does what a connection wants. Returns what the next one may ask."""
    try:
        wish = stream.recv(4)
    except ConnectionResetError:
        return last  # a health check
    if wish == b"echo":  # after the client has half-closed
        stream.sendall(read_all(stream))
    elif wish == b"mute":  # the server half-closes first
        stream.shutdown(socket.SHUT_WR)
        last = b"complete" if read_all(stream) == MEGABYTE else b"damaged"
    elif wish == b"wait":  # until the client resets it
        stream.sendall(b"here")
        try:
            last = b"closed" if not stream.recv(1) else b"data"
        except ConnectionResetError:
            last = b"reset"
    elif wish == b"last":
        stream.sendall(last)
    elif wish == b"kill":  # the server resets it
        reset(stream)
    return last


def serve(port):
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    last = b"nothing"
    while True:
        stream, _ = server.accept()
        with stream:
            stream.settimeout(PATIENCE)
            try:
                last = serve_one(stream, last)
            except OSError as error:
                last = str(error).encode()


def ask(address, port):
    def connect(wish):
        stream = socket.create_connection((address, port), timeout=PATIENCE)
        stream.sendall(wish)
        return stream

    def last():
        with connect(b"last") as stream:
            return read_all(stream)

    def expect(what, found, expected):
        if found != expected:
            sys.exit(f"{what}: {found[:40]!r}, expected {expected[:40]!r}")

    with connect(b"echo") as stream:
        stream.sendall(MEGABYTE)
        stream.shutdown(socket.SHUT_WR)
        expect("answer after a half-close by the client", read_all(stream), MEGABYTE)
    with connect(b"mute") as stream:
        expect("from the server that half-closed", read_all(stream), b"")
        stream.sendall(MEGABYTE)
    expect("what it got after that", last(), b"complete")
    with connect(b"wait") as stream:
        expect("first answer", stream.recv(4), b"here")
        reset(stream)
    expect("what the server saw of a reset", last(), b"reset")
    with connect(b"kill") as stream:
        try:
            found = stream.recv(1)
        except ConnectionResetError:
            found = b"reset"
        expect("what the client saw of a reset", found, b"reset")


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    ask(sys.argv[2], int(sys.argv[3]))
