"""Sends a VRRPv2 advertisement that somebody should refuse.

usage: vrrp_send.py ROUTER_ID PASSWORD TTL ADDRESS
"""

import socket
import struct
import sys

router, password, ttl, address = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]


def message(checksum):
    head = struct.pack("!BBBBBBH", 0x21, router, 250, 1, 1, 1, checksum)
    return head + socket.inet_aton(address) + password.encode().ljust(8, b"\0")


words = struct.unpack("!10H", message(0))
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
sender.sendto(message(~total & 0xFFFF), ("224.0.0.18", 0))
