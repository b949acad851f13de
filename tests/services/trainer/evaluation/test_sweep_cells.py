"""Cells of a sweep with planted behaviours: which one is chosen and why, and the page that shows it."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from planted_models import FIVE_GRAM, RECIPE, TEST_EXAMPLES, TRAIN, UNUSED, PlantedModel, collapsed, good, memoriser
from test_report_page import HOSTILE, Page

from e2e.conftest import chromium  # noqa: F401  # a fixture
from tunesmith.domain.runs import TrainingSettings
from tunesmith.domain.sweeps import Axis, Sweep
from tunesmith.recipes.micro_genre import STOP
from tunesmith_trainer.evaluation.cells import FIRST_SEED, USEFUL, Part, Yardstick, measure_cell, measure_training
from tunesmith_trainer.evaluation.judge import questions
from tunesmith_trainer.evaluation.sweep_page import render_sweep_page
from tunesmith_trainer.sweeps import SweepRequest, cells_of, compare

NUM_SAMPLES = 200
ASKED = questions(RECIPE, TEST_EXAMPLES, num_samples=NUM_SAMPLES, first_seed=FIRST_SEED)
YARDSTICK = Yardstick.of(RECIPE, ASKED, TEST_EXAMPLES, TRAIN)


def gibberish() -> PlantedModel:
    return PlantedModel(lambda _, rng: "".join(rng.choices("bcdfghjklmnpqrstvwxz", k=12)) + STOP, 2.5)


def mostly(share: float, salt: str) -> PlantedModel:
    """Good answers with a share of recited ones, at prompts of its own."""

    def write(number: int, rng: random.Random) -> str:
        recites = random.Random(f"{salt}/{number}").random() > share
        return f"{TRAIN[number % len(TRAIN)] if recites else UNUSED[number % len(UNUSED)]}{STOP}"

    return PlantedModel(write, 0.05)


def measured(model: PlantedModel) -> Part:
    class Anyhow:
        """Answers the same for any parameters."""

        def sample(self, prompts, parameters, *, seed):
            return model.sample(prompts, RECIPE.generation, seed=seed)

    return measure_cell(Anyhow(), YARDSTICK, RECIPE.generation, advance=lambda _: None)


def swept(*models: PlantedModel, recipe=RECIPE, metric: str = USEFUL, default: int | None = 0) -> Sweep:
    """A sweep over temperature whose cells answer as the planted models do."""
    default_temperature = RECIPE.generation.temperature
    values = [0.1 * (i + 1) for i in range(len(models))]
    if default is not None:
        values[default] = default_temperature
    axes = (Axis("temperature", "generation", tuple(values)),)
    request = SweepRequest(
        "micro_genre", "ds-1", "builtin:tiny", "f", TrainingSettings(epochs=2), axes, metric, NUM_SAMPLES, ""
    )
    cells = cells_of(request, recipe, num_train=900)
    parts = {
        cell.is_same_as: (measure_training(model, YARDSTICK, advance=lambda _: None), measured(model))
        for cell, model in zip(cells, models, strict=True)
    }
    prompts = [prompt for prompt, _ in ASKED]
    return compare(request, recipe, "sw-1", cells, parts, prompts, len(TEST_EXAMPLES), "2026-11-21T10:00:00.000000Z")


def test_an_answer_is_useful_when_it_is_valid_new_first_and_plausible() -> None:
    models = {"good": good, "memoriser": memoriser, "collapsed": collapsed, "gibberish": gibberish}
    shares = {name: measured(model()).measures[USEFUL].value for name, model in models.items()}

    assert shares["good"] > 0.85
    assert shares["memoriser"] == 0
    assert shares["collapsed"] <= 3 / NUM_SAMPLES
    assert shares["gibberish"] == 0


def test_most_held_out_answers_are_plausible() -> None:
    share = sum(YARDSTICK.is_plausible(example.answer) for example in TEST_EXAMPLES) / len(TEST_EXAMPLES)

    assert 0.94 <= share <= 0.97
    assert FIVE_GRAM.order == YARDSTICK.five_gram.order


def test_the_good_cell_wins_and_cells_that_fail_gates_do_not_compete() -> None:
    sweep = swept(mostly(0.6, "a"), good(), memoriser(), collapsed(), gibberish())

    assert (sweep.best, sweep.chosen, sweep.clear) == (1, 1, True)
    assert [cell.competes for cell in sweep.cells] == [True, True, False, False, False]
    assert "novelty" in sweep.cells[2].failed_gates
    assert "3 of 5 cells fail more gates" in sweep.verdict
    assert "clearly better than every other cell" in sweep.verdict
    assert sweep.commands[0].startswith("tunesmith tune micro_genre ds-1")
    assert sweep.commands[1] == "tunesmith generate micro_genre --temperature 0.2"


def test_equal_cells_have_no_winner_and_the_default_stays() -> None:
    sweep = swept(*[mostly(0.8, f"cell {i}") for i in range(6)], default=3)

    assert not sweep.clear
    assert sweep.chosen == sweep.default == 3
    assert len(sweep.tied) == 5
    assert sweep.verdict.startswith("No cell is clearly better")


def test_a_cell_that_is_better_than_the_default_but_not_than_its_neighbour_is_chosen() -> None:
    sweep = swept(mostly(0.6, "a"), mostly(0.95, "b"), mostly(0.94, "c"))

    assert sweep.clear
    assert sweep.chosen in (1, 2)
    assert len(sweep.tied) == 1
    assert "cannot be told apart from" in sweep.verdict


def test_a_metric_that_is_asked_for_decides() -> None:
    sweep = swept(good(), collapsed(), metric="copied_share", recipe=replace(RECIPE, gates=()))

    assert (sweep.objective, sweep.better) == ("copied_share", "lower")
    assert sweep.cells[sweep.best].metrics["copied_share"].value == min(
        cell.metrics["copied_share"].value for cell in sweep.cells
    )


def test_a_sweep_and_its_parts_are_read_back_as_they_were_written() -> None:
    sweep, part = swept(good(), mostly(0.6, "a")), measured(good())

    assert Sweep.from_json(sweep.to_json()) == sweep
    again = Part.from_json(part.to_json())
    assert again.to_json() == part.to_json()


def rendered(sweep: Sweep) -> str:
    rows = [{"step": s, "train_loss": 3.0 / s, "validation_loss": 3.2 / s} for s in range(1, 9)]
    return render_sweep_page(sweep, recipe=RECIPE, curves={sweep.cells[0].run_id: rows}).decode()


def test_the_page_is_whole_self_contained_and_escaped() -> None:
    sweep = swept(mostly(0.6, "a"), good(), memoriser())
    hostile = replace(sweep, base_model=HOSTILE, cells=tuple(replace(c, samples=(HOSTILE,)) for c in sweep.cells))

    page = Page(rendered(hostile))

    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [value for name, value in page.attributes if name in ("src", "href") and value != "data:,"]
    assert HOSTILE in page.text
    assert "Clearly best" in page.text
    assert "tunesmith generate micro_genre --temperature 0.2" in page.text
    assert rendered(sweep) == rendered(sweep)


@pytest.mark.heavy
def test_a_browser_draws_the_page_and_refuses_nothing_in_it(chromium: str, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "sweep.html"
    path.write_text(rendered(swept(mostly(0.6, "a"), good(), memoriser())), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]

    shown = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert shown.stdout.count("<svg") == 2, "losses of training and validation"
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
