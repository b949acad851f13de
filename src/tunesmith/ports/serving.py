"""Whoever serves model versions, as the registry asks it before a version becomes champion."""

from __future__ import annotations

from typing import Protocol

from tunesmith.domain.parity import Probes, ServedAnswers


class ServingBackend(Protocol):
    """Answers probes with a model version that need not be served to anyone yet. Thread-safe."""

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        """The greedy answers of that very version, in the order of the probes.

        Raises Unavailable (nobody answers), DeadlineExceeded, NotFound (the backend does not have the version, and may
        have it later), ResourceExhausted (no room now), DataLoss (its files are not those that were judged),
        FailedPrecondition, InvalidInput, PermissionRefused, Unsupported (a server that knows no probes).
        """
        ...


class ServingUsers(Protocol):
    """The same, asked what it still needs."""

    def is_used(self, recipe: str, version: str) -> bool:
        """Whether any process of it answers the recipe's requests with the version, or has not ended one with it.

        Raises Unavailable when one of them cannot be asked.
        """
        ...
