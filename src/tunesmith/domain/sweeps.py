"""Sweeps: a grid of trainings and generations on the same prompts, and which cell of it to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tunesmith.domain.models import Measure

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting that a sweep varies."""

    name: str
    kind: Literal["training", "generation"]
    values: tuple[Value, ...]
    """In the order given; no two mean the same."""


@dataclass(frozen=True, slots=True)
class SweepCell:
    """One cell of the grid, measured on the validation rows."""

    values: Mapping[str, Value]
    """Its value on each axis."""
    run_id: str
    """The training behind it; cells that differ only in generation share one."""
    metrics: Mapping[str, Measure]
    failed_gates: tuple[str, ...]
    """Gates of the recipe that it fails, by name; those against other models are the judge's."""
    competes: bool
    """No other cell fails fewer gates."""
    difference: Measure | None
    """The best cell's objective minus this one's, paired, with an interval that holds for all pairs of cells together
    (Bonferroni, 95 %); None for the best one, for cells that do not compete, and where too few answers count."""
    p_value: float | None
    """Of no difference from the best one, corrected for all pairs of cells (Holm); None where `difference` is."""
    samples: tuple[str, ...]
    """Its first answers, in the order of `Sweep.prompts`; see `evaluation.answers.Answer.sample`."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The outcome of a sweep. Indices are of `cells`, which stand in the order of the grid, the last axis fastest."""

    id: str
    recipe: str
    dataset_id: str
    base_model: str
    axes: tuple[Axis, ...]
    settings: Mapping[str, Any]
    """Training settings of the default cell."""
    generation: Mapping[str, Any]
    """Generation parameters of the default cell."""
    objective: str
    """The metric that cells compete by."""
    better: Literal["higher", "lower"]
    num_samples: int
    """Prompts that each cell answered."""
    num_heldout_rows: int
    """Validation rows that each training read."""
    cells: tuple[SweepCell, ...]
    best: int
    """First by the objective among the cells that compete."""
    default: int | None
    """The recipe's own settings, with what the caller set; None where the grid does not hold them."""
    chosen: int
    """The cell to use: the best one where it is clearly better, else the default where that competes, else the best."""
    clear: bool
    """Whether the best cell is clearly better: than the default, or, where that does not compete, than the second."""
    tied: tuple[int, ...]
    """Other cells that cannot be told apart from the best one."""
    verdict: str
    """Which cell, and why, in a sentence or two."""
    commands: tuple[str, ...]
    """What judges the chosen cell's training and promotes it when it passes; what asks it as the cell did."""
    prompts: tuple[str, ...]
    """Of the samples, shortened."""
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The sweep as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Sweep:
        """The inverse of `to_json`."""
        axes = tuple(Axis(a["name"], a["kind"], tuple(a["values"])) for a in row["axes"])
        cells = tuple(_cell(cell) for cell in row["cells"])
        texts = {name: tuple(row[name]) for name in ("tied", "commands", "prompts")}
        return Sweep(**{**row, **texts, "axes": axes, "cells": cells})


def _cell(row: Mapping[str, Any]) -> SweepCell:
    return SweepCell(
        values=dict(row["values"]),
        run_id=row["run_id"],
        metrics={name: Measure(**measure) for name, measure in row["metrics"].items()},
        failed_gates=tuple(row["failed_gates"]),
        competes=row["competes"],
        difference=Measure(**row["difference"]) if row["difference"] else None,
        p_value=row["p_value"],
        samples=tuple(row["samples"]),
    )
