"""The way to the network: each host is resolved once, its addresses are judged, and the judged address is connected."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import httpcore

from tunesmith.domain.errors import DeadlineExceeded, PermissionRefused, SourceUnusable
from tunesmith.ports.clock import Clock
from tunesmith_scraper.settings import environment_name

Resolver = Callable[[str, int], Sequence[str]]
"""Host and port -> IP addresses as text, best first. Raises OSError when there is none."""

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
"""IANA's special-purpose registry. Listed here because `ipaddress` changes its mind between Python versions."""

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


def is_public(address: str) -> bool:
    """Whether an IP address is one that the public internet routes.

    IPv6 forms that carry an IPv4 address (mapped, NAT64, 6to4) are as public as the address inside.
    """
    return _is_public(ipaddress.ip_address(address.partition("%")[0]))


def _is_public(ip: _IPAddress) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in net for net in _NOT_PUBLIC_V4)
    if ip.ipv4_mapped is not None:
        return _is_public(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip in _SIX_TO_FOUR:
        return _is_public(ipaddress.IPv4Address((int(ip) >> 80) & 0xFFFFFFFF))
    return ip in _GLOBAL_V6 and not any(ip in net for net in _NOT_PUBLIC_V6)


def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses that the operating system finds, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def refuse_private_literal(host: str) -> None:
    """PermissionRefused when `host` is `localhost` or the text of an address that is not public; no look-up."""
    text = host.strip("[]").rstrip(".").lower()
    if text == "localhost" or text.endswith(".localhost"):
        raise _private(host, "127.0.0.1")
    try:
        public = is_public(text)
    except ValueError:
        return
    if not public:
        raise _private(host, text)


def _private(host: str, address: str) -> PermissionRefused:
    setting = environment_name("allow_private_addresses")
    return PermissionRefused(
        f"{host} is at {address}, which is not a public address; if you trust it, set {setting}=true",
        reason="PRIVATE_ADDRESS",
        metadata={"host": host, "address": address, "setting": setting},
    )


class Deadline:
    """The moment one attempt must be over."""

    def __init__(self, clock: Clock, total_s: float, *, setting: str) -> None:
        self._clock = clock
        self._total_s = total_s
        self._setting = setting
        self._end_s = clock.monotonic_s() + total_s

    def passed(self) -> bool:
        """Whether no time is left."""
        return self._clock.monotonic_s() >= self._end_s

    def bound(self, timeout_s: float | None) -> float:
        """`timeout_s`, or the time left if that is shorter; DeadlineExceeded when none is left."""
        left_s = self._end_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise self.exceeded()
        return left_s if timeout_s is None else min(left_s, timeout_s)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside, waiting for one's turn, does not count."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self._end_s += self._clock.monotonic_s() - began_s

    def exceeded(self) -> DeadlineExceeded:
        """The error for an attempt that took too long."""
        return DeadlineExceeded(
            f"the source took longer than {self._total_s:g} s; try again later, or raise {self._setting}",
            reason="SOURCE_TOO_SLOW",
            metadata={"limit": f"{self._total_s:g}", "setting": self._setting},
        )


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to an address that it has judged itself, so that a second look-up cannot give another one.

    TLS still names and checks the host, which httpcore takes from the URL.
    """

    def __init__(self, resolver: Resolver, *, allow_private: bool, deadline: Deadline) -> None:
        self._resolver = resolver
        self._allow_private = allow_private
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} cannot be resolved: {error}") from error
        if not self._allow_private:
            for address in addresses:
                # One private address among public ones is a rebinding trick or a broken zone: refuse the host.
                if not is_public(address):
                    raise _private(host, address)
        failure: Exception = httpcore.ConnectError(f"the name {host} has no address")
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    address, port, self._deadline.bound(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline)
        raise failure


class _BoundedStream(httpcore.NetworkStream):
    """A stream whose every operation ends by the deadline: a peer that sends a byte a second gains nothing."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.bound(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.bound(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.bound(timeout))
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise SourceUnusable(
                    f"the certificate of {server_hostname} is not valid: {error.__cause__.verify_message}; "
                    "check the address, or download the file yourself and upload it",
                    reason="CERTIFICATE_INVALID",
                    metadata={"host": server_hostname or ""},
                ) from error
            raise
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
