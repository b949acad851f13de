"""Where services listen by convention, and how their addresses are written. Light, for `--help` and health checks."""

from __future__ import annotations

import re
from collections.abc import Mapping

SERVICE_PORTS: Mapping[str, int] = {"scraper": 50401, "captioner": 50402, "trainer": 50403, "generator": 50404}
"""Port of each service that runs alone; all services in one process share 50400."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}  # not bound here

_TARGET = re.compile(r"(?:[a-z]+:(?:/{2,3})?)?[^\s/=]*:\d{1,5}|unix:.+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_NEXT = re.compile(r",(?=[a-z]+=)")


def reached_at(listen: str) -> str:
    """The address at which this machine reaches a server that listens on `listen`."""
    host, _, port = listen.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}:{port}"


def read_servers(text: str) -> Mapping[str, str]:
    """gRPC targets by service, of what `--server` names; ValueError says how to write it.

    `HOST:PORT` (any gRPC target) is one server for all; `HOST` has each service on its own port (SERVICE_PORTS);
    `scraper=HOST:PORT,trainer=HOST:PORT` names them one by one, and may leave some out.
    """
    if _TARGET.fullmatch(text):
        return dict.fromkeys(SERVICE_PORTS, text)
    if _HOST.fullmatch(text):
        return {service: f"{text}:{port}" for service, port in SERVICE_PORTS.items()}
    found: dict[str, str] = {}
    for part in _NEXT.split(text):
        service, equals, target = part.partition("=")
        if not equals or not _TARGET.fullmatch(target):
            raise ValueError(
                f"{part!r} is not HOST:PORT (one server), HOST (each service on its own port), or "
                "scraper=HOST:PORT,captioner=HOST:PORT,trainer=HOST:PORT,generator=HOST:PORT"
            )
        if service not in SERVICE_PORTS:
            raise ValueError(f"{service!r} is no service; the services are {', '.join(SERVICE_PORTS)}")
        if service in found:
            raise ValueError(f"{service!r} is named twice")
        found[service] = target
    return found
