"""The recipes, by name: those that ship, and the plug-ins of this process (`plugins`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tunesmith.domain.errors import RecipeFailed, UnknownRecipe
from tunesmith.recipes import lyrics, micro_genre, playlist, video_tags
from tunesmith.recipes.base import Recipe
from tunesmith.recipes.plugins import SETTING, Plugins, load_plugins

SHIPPED: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        micro_genre.RECIPE,
        lyrics.RECIPE,
        playlist.RECIPE,
        video_tags.RECIPE,
    )
}
"""The recipes that are part of Tunesmith. What can be used is `all_recipes`."""

CODE_HASH = "recipe_code"
"""Key of a job's request that holds the plug-in's code as the server knew it."""


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`.

    UnknownRecipe lists the known ones; RecipeFailed when a plug-in of that name, or of a file of that name, could not
    be loaded.
    """
    if (recipe := SHIPPED.get(name) or _plugins().recipes.get(name)) is not None:
        return recipe
    recipes = all_recipes()
    known = ", ".join(sorted(recipes))
    failed = _plugins().failed
    for plugin in failed:
        if name in plugin.names:
            raise plugin.error
    message = f"recipe {name[:80]!r} is unknown; known recipes: {known}"
    if failed:
        message += f"; not loaded: {'; '.join(plugin.error.message for plugin in failed)}"
    raise UnknownRecipe(message, metadata={"value": name[:80], "known": known.replace(", ", ",")})


def all_recipes() -> Mapping[str, Recipe]:
    """Every recipe that can be used, by name: the shipped ones first."""
    return {**SHIPPED, **_plugins().recipes}


def failed_plugins() -> tuple[RecipeFailed, ...]:
    """Why plug-ins of this process could not be loaded."""
    return tuple(plugin.error for plugin in _plugins().failed)


def with_code(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job's request (`recipe`, ...) together with the code of its recipe, where that is a plug-in."""
    code_hash = recipe_named(request["recipe"]).code_hash
    return {**request, CODE_HASH: code_hash} if code_hash else request


def check_code(request: Mapping[str, Any]) -> None:
    """RecipeFailed when a job was asked for with other code of its recipe than this process has."""
    expected = request.get(CODE_HASH, "")
    if not expected:
        return
    recipe = recipe_named(request["recipe"])
    if recipe.code_hash != expected:
        raise RecipeFailed(
            f"the file of recipe {recipe.name!r} was changed after the server loaded it; start the server again and "
            "send the request again",
            reason="RECIPE_CHANGED",
            metadata={"recipe": recipe.name},
        )


def _plugins() -> Plugins:
    return load_plugins(os.environ.get(SETTING, ""), frozenset(SHIPPED))
