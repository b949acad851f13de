"""Network addresses."""

from __future__ import annotations

import ipaddress


def is_loopback(host_name: str) -> bool:
    """Whether an address reaches this machine only."""
    try:
        return ipaddress.ip_address(host_name.strip("[]")).is_loopback
    except ValueError:
        return host_name == "localhost"
