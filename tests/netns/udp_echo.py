"""Answers every datagram with a name: udp_echo.py NAME ADDRESS PORT [ADDRESS PORT]…

Each address has its own socket, so that the answer comes from it.
"""

import select
import socket
import sys

name, *places = sys.argv[1:]
sockets = []
for address, port in zip(places[::2], places[1::2]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets.append(socket.socket(family, socket.SOCK_DGRAM))
    sockets[-1].bind((address, int(port)))
while True:
    for ready in select.select(sockets, [], [])[0]:
        _, client = ready.recvfrom(65535)
        ready.sendto(name.encode(), client)
