"""Tunesmith's shared kernel: domain, ports, adapters, jobs and RPC plumbing. No torch, no service."""

__version__ = "0.1.0"
