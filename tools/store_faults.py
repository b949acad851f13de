"""A proxy before an S3 store that loses replies: for tests, the chaos tool and benchmarks.

    python tools/store_faults.py http://127.0.0.1:9000 --error-after 0.05 --cut-after 0.05 --seed 7

prints the address to use instead. Requests pass with their Host header, so signatures stay valid. What goes wrong is
drawn from the seed, in the order in which writes arrive. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 16
_WRITES = ("PUT", "POST", "DELETE")
_CONDITIONS = ("if-match", "if-none-match")

Rewrite = Callable[[str, str, Mapping[str, str], bytes], Mapping[str, str]]
"""Gives the headers to send on for method, path, headers and body."""


@dataclass(frozen=True)
class Faults:
    """How likely each fault is; at most one strikes a request."""

    error_after: float = 0.0
    """A write is carried out and answered with 503."""
    cut_after: float = 0.0
    """A write is carried out and its connection closed without an answer."""
    cut_before: float = 0.0
    """A write's connection is closed, and nothing is carried out."""
    twice: float = 0.0
    """A write is sent twice, and the second answer is given."""
    late: float = 0.0
    """A conditional write is answered with 503 and carried out `late_s` afterwards."""
    cut_reply: float = 0.0
    """The bytes of a read object end early."""
    late_s: float = 0.2

    @staticmethod
    def kinds() -> list[str]:
        """Names of the faults."""
        return [field.name for field in fields(Faults) if field.name != "late_s"]


class FaultyStore:
    """A running proxy. `struck` counts the faults by kind."""

    def __init__(
        self, endpoint: str, faults: Faults, *, seed: int, port: int = 0, rewrite: Rewrite | None = None
    ) -> None:
        self.target = urlsplit(endpoint).netloc
        self.faults = faults
        self.rewrite = rewrite
        self.struck: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._late: list[threading.Thread] = []
        proxy = self

        class Handler(_Handler):
            store = proxy

        self._server = _Server(("127.0.0.1", port), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; late writes are carried out first."""
        for thread in self._late:
            thread.join()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def draw(self, method: str, headers: Mapping[str, str]) -> str:
        """The fault that strikes this request, or nothing."""
        if method == "GET":
            kinds = ["cut_reply"]
        elif method in _WRITES:
            conditional = any(name.lower() in _CONDITIONS for name in headers)
            kinds = [k for k in Faults.kinds() if k != "cut_reply" and (conditional or k != "late")]
        else:
            return ""
        with self._lock:
            drawn = self._chance.random()
            for kind in kinds:
                drawn -= getattr(self.faults, kind)
                if drawn < 0:
                    self.struck[kind] += 1
                    return kind
        return ""

    def later(self, action: Callable[[], object]) -> None:
        """Do it `late_s` from now."""
        timer = threading.Timer(self.faults.late_s, action)
        with self._lock:
            self._late.append(timer)
        timer.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or store that went away is what this is about."""


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def _send(connection: http.client.HTTPConnection, request: _Request) -> http.client.HTTPResponse:
    connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    connection.endheaders(request.body or None)
    return connection.getresponse()


def _carry_out(connection: http.client.HTTPConnection, request: _Request) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        _send(connection, request).read()
    connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FaultyStore
    _upstream: http.client.HTTPConnection | None = None

    def handle_one_request(self) -> None:
        """Pass one request on."""
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return None
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        fault = self.store.draw(self.command, dict(self.headers))
        if fault == "cut_before":
            return self._cut()
        if fault == "late":
            # By then this connection carries another request.
            self.store.later(partial(_carry_out, self._new_connection(), self._request(body)))
            return self._answer_503()
        if fault == "twice":
            self._send_on(body).read()
        reply = self._send_on(body)
        if fault in ("error_after", "cut_after"):
            reply.read()
            return self._cut() if fault == "cut_after" else self._answer_503()
        return self._pass_back(reply, cut=fault == "cut_reply")

    def finish(self) -> None:
        """The client went away."""
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _new_connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.store.target, timeout=60)

    def _request(self, body: bytes) -> _Request:
        headers: Mapping[str, str] = dict(self.headers)
        if self.store.rewrite is not None:
            headers = self.store.rewrite(self.command, self.path, headers, body)
        return _Request(self.command, self.path, headers, body)

    def _send_on(self, body: bytes) -> http.client.HTTPResponse:
        if self._upstream is None:
            self._upstream = self._new_connection()
        return _send(self._upstream, self._request(body))

    def _pass_back(self, reply: http.client.HTTPResponse, *, cut: bool) -> None:
        length = reply.headers.get("content-length")
        data = reply.read() if length is None and self.command != "HEAD" else None
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", length if length is not None else str(len(data or b"")))
        self.end_headers()
        if self.command == "HEAD":
            reply.read()
        elif data is not None:
            self.wfile.write(data)
        else:
            left = int(length or 0) // 2 if cut else int(length or 0)
            while left and (chunk := reply.read(min(left, _CHUNK_BYTES))):
                self.wfile.write(chunk)
                left -= len(chunk)
            if cut:
                return self._cut()
            reply.read()  # even of an empty answer, before the connection can be used again
        self.wfile.flush()
        return None

    def _answer_503(self) -> None:
        body = b"<Error><Code>SlowDown</Code><Message>a planted fault</Message></Error>"
        self.send_response_only(503, "Service Unavailable")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def faulty(endpoint: str, faults: Faults, *, seed: int, rewrite: Rewrite | None = None) -> Iterator[FaultyStore]:
    """A proxy for the block."""
    store = FaultyStore(endpoint, faults, seed=seed, rewrite=rewrite)
    try:
        yield store
    finally:
        store.close()


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    for kind in Faults.kinds():
        parser.add_argument(f"--{kind.replace('_', '-')}", type=float, default=0.0, metavar="P")
    given = parser.parse_args()
    faults = Faults(**{kind: getattr(given, kind) for kind in Faults.kinds()})
    store = FaultyStore(given.endpoint, faults, seed=given.seed, port=given.port)
    print(f"{store.endpoint} stands before {given.endpoint}, seed {given.seed}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    store.close()
    print(" ".join(f"{kind}={count}" for kind, count in sorted(store.struck.items())) or "no faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
