"""Use cases of the captioner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from tunesmith.domain.errors import FailedPrecondition
from tunesmith.recipes import recipe_named

MediaKind = Literal["audio", "video"]


@dataclass(frozen=True, slots=True)
class Captioner:
    """A captioner that this server can run."""

    name: str
    version: str
    media_kinds: tuple[MediaKind, ...]


def installed_captioners() -> Sequence[Captioner]:
    """The captioners of this build, in order of preference. It has none yet: its recipes need no media."""
    return ()


def caption_clips(recipe: str, wanted: str) -> NoReturn:
    """Raise UnknownRecipe, or FailedPrecondition that lists the captioners there are."""
    recipe_named(recipe)
    names = ", ".join(captioner.name for captioner in installed_captioners()) or "none"
    raise FailedPrecondition(
        f"no captioner {wanted or 'for this recipe'!r} is installed here; installed: {names}. Recipe {recipe!r} learns "
        "from text records, which need no captions: go on with BuildDataset",
        reason="NO_CAPTIONER",
        metadata={"wanted": wanted, "installed": names},
    )
