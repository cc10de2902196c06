"""Sends or receives UDP in 802.1Q-tagged frames on raw sockets.

vlan.py send INTERFACE --to-mac MAC --to ADDRESS --port PORT --tag VID --count N
    from 10.88.0.2, each from another source port
vlan.py receive INTERFACE --seconds S
    prints `vlan VID SOURCE PORT DESTINATION PORT` for each tagged UDP packet
"""

import argparse
import socket
import struct
import time

ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA = 3, 263, 8
TP_STATUS_VLAN_VALID = 1 << 4


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(given):
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((given.interface, 0))
    own_mac = raw.getsockname()[4]
    source, destination = (socket.inet_aton(a) for a in ("10.88.0.2", given.to))
    for number in range(given.count):
        payload = b"tagged"
        udp_length = 8 + len(payload)
        udp = struct.pack("!HHHH", 20000 + number, given.port, udp_length, 0) + payload
        pseudo = source + destination + struct.pack("!BBH", 0, 17, udp_length)
        udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp)) + udp[8:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + udp_length, number, 0, 64, 17, 0)
        ip += source + destination
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        ethernet = bytes.fromhex(given.to_mac.replace(":", "")) + own_mac
        raw.send(ethernet + struct.pack("!HHH", 0x8100, given.tag, 0x0800) + ip + udp)


def receive(given):
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    raw.bind((given.interface, ETH_P_ALL))
    end = time.monotonic() + given.seconds
    while (left := end - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            frame, ancillary, _, _ = raw.recvmsg(2048, 256)
        except TimeoutError:
            return
        tag = None
        # The kernel takes the tag out of the frame and reports it beside it.
        for level, kind, data in ancillary:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci = struct.unpack_from("=IIIHHH", data)
                if status & TP_STATUS_VLAN_VALID:
                    tag = tci & 0xFFF
        if frame[12:14] == b"\x81\x00":
            tag = struct.unpack("!H", frame[14:16])[0] & 0xFFF
            frame = frame[:12] + frame[16:]
        if tag is None or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        ports = struct.unpack("!HH", frame[34:38])
        source, destination = (socket.inet_ntoa(frame[i : i + 4]) for i in (26, 30))
        print("vlan", tag, source, ports[0], destination, ports[1], flush=True)


arguments = argparse.ArgumentParser()
arguments.add_argument("what", choices=["send", "receive"])
arguments.add_argument("interface")
arguments.add_argument("--to-mac")
arguments.add_argument("--to")
arguments.add_argument("--port", type=int)
arguments.add_argument("--tag", type=int)
arguments.add_argument("--count", type=int)
arguments.add_argument("--seconds", type=float)
given = arguments.parse_args()
send(given) if given.what == "send" else receive(given)
