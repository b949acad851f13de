"""The last gate before a version becomes champion: whoever serves must answer as the judge did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Interrupted,
    NotFound,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import ModelVersion, Report
from tunesmith.domain.parity import NotAsJudged, ParityCheck, Probes, ServedAnswers, compare, not_checked
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.serving import ServingBackend
from tunesmith.ports.store import Store
from tunesmith_trainer.replicas import Asker

log = logging.getLogger(__name__)

NUM_PROBES = 8
"""Judged prompts whose answers are compared."""

MAX_PROBE_TOKENS = 32
"""Tokens of each answer at most: enough for a wrong position encoding to show, few enough for seconds on a CPU."""

MAX_PROBE_CHARS = 2_000
"""Longer prompts are not among the probes: servers bound what they read, and the judge writes them as one batch."""

ANSWER_TIMEOUT_S = 300.0
"""One attempt: the server may have to load the model first."""

FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
"""Between attempts, doubling."""

_MAY_COME = (Unavailable, DeadlineExceeded, NotFound, ResourceExhausted)
"""Errors of a server that starts, loads, or is about to be replaced by one that has the version."""


def probe_prompts(prompts: Sequence[str]) -> list[str]:
    """NUM_PROBES different prompts, taken evenly from the judged ones."""
    fitting = [prompt for prompt in dict.fromkeys(prompts) if 0 < len(prompt) <= MAX_PROBE_CHARS]
    count = min(NUM_PROBES, len(fitting))
    return [fitting[i * len(fitting) // count] for i in range(count)]


@dataclass(frozen=True, slots=True)
class ParityGate:
    """Asks the serving backend, and keeps what came of it beside the version.

    Asking twice does no harm: a process may be killed at any point, and the next attempt asks again.
    """

    store: Store
    clock: Clock
    backend: ServingBackend | None
    """None where serving parity is switched off: then that is what is kept."""
    patience_s: float
    """How long a server that does not answer, or does not have the version yet, is waited for."""
    should_stop: Callable[[], bool] = lambda: False
    waiting: Callable[[str], None] = lambda _: None
    """Told why it waits."""
    servers: Asker | None = None
    """Has servers started that have the version; None where the backend loads it, or is started with it by others."""

    def require(self, version: ModelVersion, report: Report) -> ParityCheck:
        """The check of a version that may become champion.

        Raises NotAsJudged when what is served answers otherwise, FailedPrecondition for a report without probes, or
        when no server can be started; Unavailable when nobody answered within `patience_s`, Interrupted.
        """
        check = self._check(version, report.probes)
        self.store.put(keys.parity(version.recipe, version.id), canonical_json(check.to_json()))
        if check.checked and not check.agrees:
            self.let_go(version)
            raise NotAsJudged(check)
        return check

    def let_go(self, version: ModelVersion) -> None:
        """Keep no server for a version that does not become champion."""
        if self.servers is not None:
            self.servers.refused(version)

    def _check(self, version: ModelVersion, probes: Probes | None) -> ParityCheck:
        now = rfc3339(self.clock.now())
        if self.backend is None:
            return not_checked(version.id, why="TUNESMITH_SERVING=none", at=now)
        if probes is None:
            raise FailedPrecondition(
                f"the report of model version {version.id} was made before judges kept answers to compare with; judge "
                f"its run again (`tunesmith judge {version.recipe} {version.run_id} --promote`)",
                reason="NO_PROBES",
                metadata={"version": version.id},
            )
        if not probes.probes:
            return not_checked(version.id, why="the judge had no prompt that a server would read", at=now)
        if self.servers is not None:
            self.servers.until_ready(version)
        try:
            served = self._answers(self.backend, version, probes)
        except DataLoss as error:
            return _failed(version, probes, error, at=now)
        return compare(probes, served, version=version.id, adapter_hash=version.adapter_hash, at=now)

    def _answers(self, backend: ServingBackend, version: ModelVersion, probes: Probes) -> ServedAnswers:
        deadline_s = self.clock.monotonic_s() + self.patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            if self.should_stop():
                raise Interrupted("promoting was asked to stop; the next attempt asks the generator again")
            try:
                return backend.answer_probes(version.recipe, version.id, probes, timeout_s=ANSWER_TIMEOUT_S)
            except _MAY_COME as error:
                left_s = deadline_s - self.clock.monotonic_s()
                if left_s <= 0:
                    raise _gave_up(version, self.patience_s, error) from error
                if self.servers is not None:
                    self.servers.still_waits(version)
                log.warning("the generator cannot be asked about %s yet: %s", version.id, error.message)
                self.waiting(error.message)
                self.clock.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, MAX_PAUSE_S)


def find_check(store: Store, recipe: str, version: str) -> ParityCheck | None:
    """The last check of a version; None when it was never to become champion."""
    try:
        return read_object(store, keys.parity(recipe, version), ParityCheck.from_json, what=f"parity of {version!r}")
    except NotFound:
        return None


def _failed(version: ModelVersion, probes: Probes, error: TunesmithError, *, at: str) -> ParityCheck:
    """A backend that has other bytes than those that were judged."""
    num_tokens = sum(len(probe.tokens) for probe in probes.probes)
    detail = f"what is served is not what was judged: {error.message}"
    return ParityCheck(version.id, True, False, len(probes.probes), 0, num_tokens, 0, 0.0, 0.0, "", detail, at)


def _gave_up(version: ModelVersion, patience_s: float, error: TunesmithError) -> Unavailable:
    return Unavailable(
        f"model version {version.id} passed its gates but is not champion: the generator could not be asked within "
        f"{patience_s:.0f} s ({error.message}); start it, or set TUNESMITH_SERVING to where it is, and run "
        f"`tunesmith promote {version.recipe} {version.id}`",
        reason="SERVING_UNAVAILABLE",
        metadata={"version": version.id, "waited_s": f"{patience_s:.0f}"},
    )
