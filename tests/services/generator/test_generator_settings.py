from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from contract.documented import undocumented_fields
from tunesmith.ports import parameters
from tunesmith.recipes import SHIPPED
from tunesmith.recipes.base import Recipe
from tunesmith_generator.settings import GeneratorSettings

FROZEN = {
    "backend": "embedded",
    "backend_api_key": SecretStr(""),
    "max_batch_size": 16,
    "queue_limit": 128,
    "max_new_tokens_limit": 1024,
    "max_prompt_tokens": 1024,
    "max_loaded_adapters": 8,
    "max_loaded_bases": 2,
    "refresh_interval_s": 1.0,
    "serve_rejected": False,
    "device": "auto",
    "dtype": "float32",
    "num_threads": 0,
}


def test_settings_and_defaults_are_the_published_ones() -> None:
    assert GeneratorSettings().model_dump() == FROZEN


@pytest.mark.parametrize("recipe", SHIPPED.values(), ids=SHIPPED)
def test_what_a_recipe_asks_for_is_within_the_default_limits(recipe: Recipe) -> None:
    parameters.check(recipe.generation, max_new_tokens_limit=GeneratorSettings().max_new_tokens_limit)


def test_every_setting_says_what_it_means_here_and_in_the_readme() -> None:
    readme = Path("services/generator/README.md").read_text()

    assert undocumented_fields(GeneratorSettings) == []
    for name in GeneratorSettings.model_fields:
        assert f"`{name.upper()}`" in readme


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_GENERATOR_MAX_BATCH_SIZE", "4")

    assert GeneratorSettings().max_batch_size == 4


def test_a_wrong_value_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_GENERATOR_MAX_BATCH_SIZE", "0")

    with pytest.raises(ValidationError, match="max_batch_size"):
        GeneratorSettings()
