"""Prints who answers datagrams, a line each; exits with 1 if one is not answered in 2 s."""

import argparse
import socket
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("address")
arguments.add_argument("port", type=int)
arguments.add_argument("--sockets", type=int, default=1)
arguments.add_argument("--datagrams", type=int, default=1, help="of each socket")
arguments.add_argument("--interval", type=float, default=0, help="seconds between them")
arguments.add_argument("--size", type=int, default=4, help="bytes of each datagram")
given = arguments.parse_args()

family = socket.AF_INET6 if ":" in given.address else socket.AF_INET
# All at once, so that no port number comes twice.
clients = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(given.sockets)]
for client in clients:
    client.settimeout(2)
    client.connect((given.address, given.port))
    for _ in range(given.datagrams):
        client.send(b"?" * given.size)
        print(client.recv(100).decode(), flush=True)
        time.sleep(given.interval)
