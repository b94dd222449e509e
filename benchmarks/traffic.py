"""Bytes that go over the network to and from an S3 server: a proxy on loopback that counts and changes nothing.

In:  the server's endpoint.
Out: a separate endpoint, and how many bytes went each way until a moment, with everything that HTTP adds.
"""

from __future__ import annotations

import socket
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Traffic:
    """Bytes by the second in which they went, `read` from the server and `written` to it."""

    endpoint: str
    read: list[tuple[float, int]] = field(default_factory=list)
    written: list[tuple[float, int]] = field(default_factory=list)

    def between(self, start: datetime, end: datetime) -> tuple[int, int]:
        """Bytes read and written from one moment to another."""
        return _sum(self.read, start, end), _sum(self.written, start, end)


@contextmanager
def counted(endpoint: str) -> Iterator[Traffic]:
    """Count what goes through the endpoint of the result to `endpoint` and back."""
    host, port = endpoint.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        traffic = Traffic(f"http://127.0.0.1:{listener.getsockname()[1]}")
        acceptor = threading.Thread(target=_accept, args=(listener, (host, int(port)), traffic), daemon=True)
        acceptor.start()
        try:
            yield traffic
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()


def _accept(listener: socket.socket, server: tuple[str, int], traffic: Traffic) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection(server)
            for source, target, counts in ((client, upstream, traffic.written), (upstream, client, traffic.read)):
                threading.Thread(target=_forward, args=(source, target, counts), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, counts: list[tuple[float, int]]) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            counts.append((datetime.now(UTC).timestamp(), len(data)))
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _sum(counts: list[tuple[float, int]], start: datetime, end: datetime) -> int:
    found = sorted(counts)
    first = bisect_right(found, (start.timestamp(), 0))
    last = bisect_right(found, (end.timestamp(), 1 << 62))
    return sum(size for _, size in found[first:last])
