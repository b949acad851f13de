"""Serving parity: whether what is served answers as what was judged.

The judge keeps, with its report, the greedy answers of a few of its own prompts: token by token, with their
log-probabilities. Before a version becomes champion, whoever serves answers the same prompts, and `compare` decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tunesmith.domain.errors import FailedPrecondition

PARITY = "parity"
"""Name of the gate that this is."""

NOISE_FACTOR = 4.0
"""How many times the noise that the judge measured a served log-probability may be off.

The noise is the largest of a few hundred differences on one machine. Another engine adds the same numbers in another
order, with errors of the same size but not the same ones, and the largest of as many draws scatters. Planted faults lie
far outside: see `tests/services/trainer/publishing/test_serving_parity.py`.
"""

LEAST_TOLERANCE = 1e-3
"""Natural logarithms of probabilities that differ by less are never told apart. Measured in float32 on one machine,
batch against single pass: 2e-6 to 3e-6; the rest is room for kernels of other machines. A `rope_theta` that is a tenth
off moved some log-probability by 0.1 or more."""

LEAST_COMPARED_SHARE = 0.5
"""Of the judge's tokens so many must have been compared: answers that part at near-ties early say too little."""

NO_IDS = (
    "the server tells no token ids, so that nothing can be compared; serve from one that does "
    "(text-generation-inference, vLLM's completions, the embedded engine)"
)


@dataclass(frozen=True, slots=True)
class ProbeToken:
    """One token of the judge's greedy answer. Log-probabilities are natural, under the unmodified distribution."""

    id: int
    text: str
    logprob: float
    runner_up: int
    """Id of the second likeliest token at this place."""
    runner_up_logprob: float


@dataclass(frozen=True, slots=True)
class Probe:
    """One judged prompt with the judge's greedy answer, which ends with the end token or stop sequence, if it came."""

    prompt: str
    tokens: tuple[ProbeToken, ...]


@dataclass(frozen=True, slots=True)
class Probes:
    """What a version must answer when it is served, and how exactly that can be known."""

    probes: tuple[Probe, ...]
    max_new_tokens: int
    stop: tuple[str, ...]
    noise: float
    """Largest difference between log-probabilities of the same tokens in the judge's own engine: in a padded batch,
    token by token, against alone, in one pass."""
    half_noise: float
    """The same against a pass in bfloat16: what a server that computes in half precision differs by."""

    def tolerance(self, number_format: str) -> float:
        """How far a served log-probability may be off for a server that computes in `number_format`.

        A server that does not say (empty) may be computing in half precision.
        """
        noise = self.noise if number_format == "float32" else max(self.noise, self.half_noise)
        return max(LEAST_TOLERANCE, NOISE_FACTOR * noise)

    def to_json(self) -> dict[str, Any]:
        """The probes as part of a report's object."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Probes:
        """The inverse of `to_json`."""
        return Probes(
            probes=tuple(
                Probe(probe["prompt"], tuple(ProbeToken(**token) for token in probe["tokens"]))
                for probe in row["probes"]
            ),
            max_new_tokens=row["max_new_tokens"],
            stop=tuple(row["stop"]),
            noise=row["noise"],
            half_noise=row["half_noise"],
        )


@dataclass(frozen=True, slots=True)
class ServedToken:
    """One token of a served greedy answer. `id` is None from servers that tell only texts: nothing can be compared."""

    id: int | None
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class ServedAnswers:
    """What a server answered to probes, in their order, and what it says of itself."""

    answers: tuple[tuple[ServedToken, ...], ...]
    adapter_hash: str
    """SHA-256 of the adapter's weights that answered; empty where the server cannot know."""
    backend: str
    """Who answered, for people: address and kind."""
    number_format: str
    """`float32`, `bfloat16`, ... ; empty where the server cannot know."""


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """The outcome of one comparison, kept beside the model version."""

    version: str
    checked: bool
    """False where serving parity is switched off; then nothing below counts."""
    agrees: bool
    num_prompts: int
    num_agreeing: int
    num_tokens: int
    """Of the judge's answers."""
    num_compared: int
    largest_difference: float
    """Between log-probabilities of the same token, of those that were compared."""
    tolerance: float
    backend: str
    detail: str
    """For people: one line, with the first difference where there is one."""
    checked_at: str

    def to_json(self) -> dict[str, Any]:
        """The check as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> ParityCheck:
        """The inverse of `to_json`."""
        return ParityCheck(**{f.name: row[f.name] for f in fields(ParityCheck)})


class NotAsJudged(FailedPrecondition):
    """What is served answers otherwise than what was judged; `check` says how."""

    reason = "PARITY"

    def __init__(self, check: ParityCheck) -> None:
        super().__init__(
            f"model version {check.version} may not become champion: {check.detail}",
            metadata={"version": check.version, "failed_gates": PARITY, "backend": check.backend},
        )
        self.check = check


def not_checked(version: str, *, why: str, at: str) -> ParityCheck:
    """The record that a version became champion without a comparison."""
    return ParityCheck(version, False, False, 0, 0, 0, 0, 0.0, 0.0, "", f"not checked: {why}", at)


def compare(
    probes: Probes, served: ServedAnswers, *, version: str, adapter_hash: str, prompts_shown: int = 60, at: str
) -> ParityCheck:
    """Whether the served answers are the judge's: the same tokens, with log-probabilities within the tolerance.

    Another token agrees only at a near-tie: it is the judge's own second choice, and the judge's first was ahead of it
    by no more than twice the tolerance, so that errors within the tolerance on both may swap them. From there on the
    two answers go on from different texts, and nothing more of that prompt is compared. A missing end token agrees,
    for some servers leave it out.
    """
    tolerance = probes.tolerance(served.number_format)
    num_tokens = sum(len(probe.tokens) for probe in probes.probes)
    first = ""
    if served.adapter_hash and served.adapter_hash != adapter_hash:
        first = f"the adapter that answers has SHA-256 {served.adapter_hash[:16]}, judged was {adapter_hash[:16]}"
    elif len(served.answers) != len(probes.probes):
        first = f"{len(served.answers)} answers came for {len(probes.probes)} prompts"
    num_agreeing = num_compared = 0
    largest = 0.0
    if not first:
        for number, (probe, answer) in enumerate(zip(probes.probes, served.answers, strict=True), start=1):
            found = _compared(probe, answer, tolerance)
            num_compared += found.num_compared
            largest = max(largest, found.largest_difference)
            num_agreeing += not found.difference
            if found.difference and not first:
                shown = probe.prompt[:prompts_shown] + ("..." if len(probe.prompt) > prompts_shown else "")
                first = f"prompt {number} ({shown!r}): {found.difference}"
    if not first and num_compared < LEAST_COMPARED_SHARE * num_tokens:
        first = (
            f"only {num_compared} of {num_tokens} tokens could be compared before answers parted at near-ties; "
            "serve in float32, or judge again"
        )
    said = f"{num_agreeing} of {len(probes.probes)} prompts, largest difference {largest:.1g}"
    detail = (
        f"served = judged: {said} (tolerance {tolerance:.1g})"
        if not first
        else f"what is served is not what was judged: {first}; {said}, tolerance {tolerance:.1g}"
    )
    return ParityCheck(
        version=version,
        checked=True,
        agrees=not first,
        num_prompts=len(probes.probes),
        num_agreeing=num_agreeing,
        num_tokens=num_tokens,
        num_compared=num_compared,
        largest_difference=largest,
        tolerance=tolerance,
        backend=served.backend,
        detail=detail,
        checked_at=at,
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    num_compared: int
    largest_difference: float
    difference: str
    """The first one; empty where the answers agree."""


def _compared(probe: Probe, answer: Sequence[ServedToken], tolerance: float) -> _Compared:
    largest = 0.0
    for position, expected in enumerate(probe.tokens):
        if position >= len(answer):
            if position == len(probe.tokens) - 1 and position > 0 and _is_end(expected):
                return _Compared(position, largest, "")
            return _Compared(position, largest, f"token {position + 1}: expected {_told(expected)}, got the end")
        got = answer[position]
        if got.id is None:
            return _Compared(position, largest, NO_IDS)
        if got.id != expected.id:
            swapped = got.id == expected.runner_up and expected.logprob - expected.runner_up_logprob <= 2 * tolerance
            if swapped and abs(got.logprob - expected.runner_up_logprob) <= tolerance:
                return _Compared(position, largest, "")
            said = f"token {position + 1}: expected {_told(expected)}, got {_told(got)}"
            return _Compared(position, largest, said)
        off = abs(got.logprob - expected.logprob)
        # The comparison is turned round so that a NaN does not pass.
        if not off <= tolerance:
            said = f"token {position + 1}: expected {_told(expected)}, got {_told(got)}"
            return _Compared(position, largest if off != off else max(largest, off), said)
        largest = max(largest, off)
    if len(answer) > len(probe.tokens):
        extra = answer[len(probe.tokens)]
        return _Compared(
            len(probe.tokens), largest, f"token {len(probe.tokens) + 1}: expected the end, got {_told(extra)}"
        )
    return _Compared(len(probe.tokens), largest, "")


def _is_end(token: ProbeToken) -> bool:
    """Whether it is an end token: those have no text."""
    return not token.text


def _told(token: ProbeToken | ServedToken) -> str:
    name = repr(token.text) if token.text else "the end token"
    return f"{name} (id {'?' if token.id is None else token.id}, log-probability {token.logprob:.4f})"
