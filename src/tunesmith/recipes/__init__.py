"""The recipes that ship, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.domain.errors import UnknownRecipe
from tunesmith.recipes import micro_genre, video_tags
from tunesmith.recipes.base import Recipe

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (micro_genre.RECIPE, video_tags.RECIPE)}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`; UnknownRecipe lists the known ones and the nearest."""
    try:
        return RECIPES[name]
    except KeyError:
        raise UnknownRecipe(
            f"recipe {name[:80]!r} is unknown; known recipes: {', '.join(sorted(RECIPES))}",
            metadata={"value": name[:80], "known": ",".join(sorted(RECIPES))},
        ) from None
