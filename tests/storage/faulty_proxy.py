"""A TCP proxy before an S3 server that loses one answer, or gives one itself; it changes nothing that it forwards."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class FaultyProxy:
    """`fault` strikes once, on the first request whose head holds `marker` (such as b"PUT /bucket/key")."""

    def __init__(self, target: tuple[str, int], marker: bytes, answer: bytes | None) -> None:
        self._target, self._marker, self._answer = target, marker, answer
        self._armed = threading.Lock()
        self.struck = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening. Just closing would leave a thread that waits on a descriptor that the next proxy gets."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        lossy = threading.Event()
        with client, socket.create_connection(self._target) as server, suppress(OSError):
            back = threading.Thread(target=self._return_answers, args=(server, client, lossy), daemon=True)
            back.start()
            while data := client.recv(1 << 16):
                if self._marker in data and self._strike():
                    if self._answer is not None:
                        client.sendall(self._answer)
                        break
                    lossy.set()
                server.sendall(data)
            if self._answer is None or not self.struck:
                back.join()

    def _strike(self) -> bool:
        with self._armed:
            first, self.struck = not self.struck, True
            return first

    @staticmethod
    def _return_answers(server: socket.socket, client: socket.socket, lossy: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if lossy.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def losing_the_answer_to(marker: bytes, endpoint: str) -> Iterator[FaultyProxy]:
    """The server does what the request says, but the connection breaks before the client hears of it."""
    yield from _run(marker, endpoint, None)


@contextmanager
def answering(answer: bytes, marker: bytes, endpoint: str) -> Iterator[FaultyProxy]:
    """The request does not reach the server; the client gets `answer`, a whole HTTP response."""
    yield from _run(marker, endpoint, answer)


def _run(marker: bytes, endpoint: str, answer: bytes | None) -> Iterator[FaultyProxy]:
    host, port = endpoint.removeprefix("http://").split(":")
    proxy = FaultyProxy((host, int(port)), marker, answer)
    try:
        yield proxy
    finally:
        proxy.close()
