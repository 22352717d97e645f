"""Asks 127.0.0.1 evenly and never twice: load.py QUESTIONS_A_SECOND SECONDS. Nine of ten questions are for fifty names
that are known after a second, the tenth is for a new one. Prints asked, lost (of them refused: the port was closed),
wrong, the slowest in milliseconds, and how many datagrams the kernel dropped since a socket's buffer was full. A
question is lost where its answer has not come five seconds after the last one was asked, or the port is closed. Each
has a socket of its own: `ulimit -n` must hold those that wait."""

import select
import socket
import struct
import sys
import time

rate, seconds = int(sys.argv[1]), float(sys.argv[2])
waiting, lost, refused, wrong, slowest = {}, 0, 0, 0, 0.0
poll = select.epoll()


def dropped():
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Udp:")]
    return int(values[names.index("RcvbufErrors")])


def query(n):
    name = f"new{time.time_ns()}" if n % 10 == 9 else f"www{n % 50}"
    parts = b"".join(bytes([len(p)]) + p for p in [name.encode(), b"guest", b"test"])
    return struct.pack("!HHHHHH", n & 0xFFFF, 0x100, 1, 0, 0, 0) + parts + b"\0\0\1\0\1"


def take(timeout):
    global lost, refused, wrong, slowest
    for fd, _ in poll.poll(timeout):
        client, sent, ident = waiting.pop(fd)
        poll.unregister(fd)
        try:
            reply = client.recv(4096)
            slowest = max(slowest, time.monotonic() - sent)
            right = reply[:2] == ident and reply[3] & 15 == 0 and reply[7] > 0
            wrong += not right
        except OSError:
            lost, refused = lost + 1, refused + 1
        client.close()


before = dropped()
start, asked = time.monotonic(), 0
while (now := time.monotonic()) < start + seconds:
    while asked < (now - start) * rate:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", 53))
        bytes_ = query(asked)
        asked += 1
        try:
            client.send(bytes_)
        except OSError:
            lost, refused = lost + 1, refused + 1
            continue
        waiting[client.fileno()] = (client, time.monotonic(), bytes_[:2])
        poll.register(client, select.EPOLLIN)
    take(max(0.0, start + asked / rate - time.monotonic()))
end = time.monotonic() + 5
while waiting and time.monotonic() < end:
    take(end - time.monotonic())
lost += len(waiting)
print(
    f"asked={asked} lost={lost} refused={refused} wrong={wrong} slowest_ms={slowest * 1000:.0f}"
    f" kernel_dropped={dropped() - before}"
)
