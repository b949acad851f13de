"""The captioners of this build. A captioner is one file with a class that fits the Captioner protocol, and a line here.

Listing them loads none: a server must not wait for numpy, a decoder or a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from tunesmith.domain.errors import FailedPrecondition, InvalidInput
from tunesmith_captioner.captioning import Captioner, MediaKind

NEEDED = ("av", "numpy")


@dataclass(frozen=True, slots=True)
class Installed:
    """A captioner that can be loaded here."""

    name: str
    version: str
    media_kind: MediaKind
    load: Callable[[], Captioner]


def _signal_audio() -> Captioner:
    from tunesmith_captioner.signal_audio import SignalAudio

    return SignalAudio()


def _signal_video() -> Captioner:
    from tunesmith_captioner.signal_video import SignalVideo

    return SignalVideo()


CAPTIONERS: Sequence[Installed] = (
    Installed("signal-audio", "1", "audio", _signal_audio),
    Installed("signal-video", "1", "video", _signal_video),
)
"""In order of preference; a test holds names and versions to those of the classes."""


def installed_captioners() -> Sequence[Installed]:
    """What can be run here: nothing where the extra `captioner` is not installed."""
    return CAPTIONERS if all(find_spec(module) for module in NEEDED) else ()


def choose(wanted: Sequence[str]) -> tuple[Installed, ...]:
    """The captioners called `wanted`, or without names the first one for each kind of media, sorted by name.

    InvalidInput for two of one kind, FailedPrecondition (NO_CAPTIONER) for one that is not here.
    """
    there = {captioner.name: captioner for captioner in installed_captioners()}
    names = ", ".join(there) or "none (pip install 'tunesmith[captioner]')"
    if not wanted:
        chosen = tuple({captioner.media_kind: captioner for captioner in reversed(there.values())}.values())
    else:
        missing = [name for name in wanted if name not in there]
        if missing:
            raise FailedPrecondition(
                f"no captioner {missing[0][:80]!r} is installed here; installed: {names}",
                reason="NO_CAPTIONER",
                metadata={"wanted": missing[0][:80], "installed": names},
            )
        chosen = tuple(there[name] for name in dict.fromkeys(wanted))
    if not chosen:
        raise FailedPrecondition(
            f"no captioner is installed here; installed: {names}",
            reason="NO_CAPTIONER",
            metadata={"wanted": "", "installed": names},
        )
    kinds = [captioner.media_kind for captioner in chosen]
    if len(set(kinds)) < len(kinds):
        raise InvalidInput(
            f"captioners {', '.join(captioner.name for captioner in chosen)} see one kind of media; name one of each",
            metadata={"field": "captioners"},
        )
    return tuple(sorted(chosen, key=lambda captioner: captioner.name))
