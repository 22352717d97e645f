"""The guest's upstream: any name below guest.test has the address 192.0.2.80 for a minute, the root has an NS, and
nothing else exists. UDP and TCP, port 53 of the address named."""

import socket
import struct
import sys
import threading

SOA = b"\0" + struct.pack("!HHIH", 6, 1, 60, 22) + b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, 60)


def labels(question):
    names, at = [], 0
    while question[at]:
        names.append(question[at + 1 : at + 1 + question[at]].lower())
        at += 1 + question[at]
    return names, at + 5


def answer(query):
    names, end = labels(query[12:])
    question = query[12 : 12 + end]
    qtype = struct.unpack("!H", question[-4:-2])[0]
    records, authority, rcode = b"", b"", 0
    if names[-2:] == [b"guest", b"test"] and qtype == 1:
        records = b"\xc0\x0c" + struct.pack("!HHIH4s", 1, 1, 60, 4, bytes([192, 0, 2, 80]))
    elif not names and qtype == 2:
        records = b"\0" + struct.pack("!HHIH", 2, 1, 60, 3) + b"\x01a\0"
    else:
        authority, rcode = SOA, 0 if not names or names[-2:] == [b"guest", b"test"] else 3
    counts = struct.pack("!HHHH", 1, 1 if records else 0, 1 if authority else 0, 0)
    return query[:2] + struct.pack("!H", 0x8180 | rcode) + counts + question + records + authority


def tcp(listener):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


def serve(stream):
    with stream, stream.makefile("rb") as read:
        while len(head := read.read(2)) == 2:
            reply = answer(read.read(struct.unpack("!H", head)[0]))
            stream.sendall(struct.pack("!H", len(reply)) + reply)


listener = socket.create_server((sys.argv[1], 53))
threading.Thread(target=tcp, args=(listener,), daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 53))
while True:
    query, client = udp.recvfrom(4096)
    try:
        udp.sendto(answer(query), client)
    except (IndexError, struct.error):
        pass
