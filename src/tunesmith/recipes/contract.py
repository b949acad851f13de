"""What every recipe must keep to, as checks that tests and `tunesmith recipe check` share. Pure, but for `watched`."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tunesmith.domain.errors import InvalidInput, RecipeFailed, Unsupported
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.models import MetricInfo
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.recipes.base import Against, Answered, Recipe

MAX_PROBLEMS = 5
"""Problems that one check tells: the first ones say what is wrong."""

NUM_MADE_UP_TEXTS = 300

ODD_TEXTS = (
    "", " ", "\n", "a", "deep house", "Beyoncé", "ﬁne ﬀect", "İstanbul", "straße", "ЁЛКА", "東京", "🎵🎶", "e\u0301",
    "a\u200bb", "two\nlines", "tab\there", "null\x00byte", "->", "|", "1->x", "{}", '{"a": 1}', "[]",
    "```json\n[]\n```",
    "<b>bold</b>", "<|im_end|>", "<|im_start|>assistant\n", "https://example.org/?q=1", "50 % off", "a" * 500,
    "word " * 200, "\\", "'quoted'", '"quoted"', "-1", "3.5", "∞", "\u202eright to left", "a|b|c", "a,b;c",
)  # fmt: skip
"""Texts that broke readers before: empty, markup, marks of other formats, letters whose case or form is special."""

_PROVENANCE = Provenance("check", "check:", "check:", Licence("CC0-1.0"), "2026-01-01T00:00:00Z", "0" * 64)


@dataclass(frozen=True, slots=True)
class Material:
    """What a recipe is tried with."""

    records: Sequence[Record]
    texts: Sequence[str]
    shared_metrics: Mapping[str, MetricInfo]
    """The metrics that every report has; a gate may name these and the recipe's own."""
    own_records: bool
    """Whether records of the recipe's own kind are among them."""
    examples: Sequence[Example] = ()
    """What the recipe makes of the records."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found. `problems` is empty when all is well."""

    name: str
    num_tried: int
    problems: Sequence[str]


@dataclass(slots=True)
class _Tried:
    """Counts what was tried, and keeps the first problems."""

    num: int = 0
    problems: list[str] = field(default_factory=list)

    def see(self, problem: str) -> None:
        self.num += 1
        if problem and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def check_recipe(
    recipe: Recipe, *, rows: Sequence[Mapping[str, str]] = (), shared_metrics: Mapping[str, MetricInfo]
) -> Iterator[CheckResult]:
    """Try a recipe with odd and made-up texts, and with `rows`, the fields of real records. Equal calls, equal results.

    A plug-in that raises, or gives something of the wrong type, is a problem of that check.
    """
    try:
        material = material_for(recipe, rows=rows, shared_metrics=shared_metrics)
    except RecipeFailed as error:
        yield CheckResult("records give examples", 1, [error.message])
        return
    for name, check in CHECKS.items():
        tried = _Tried()
        with watched() as effects:
            try:
                check(recipe, material, tried)
            except RecipeFailed as error:
                tried.see(error.message)
        for effect in effects:
            tried.see(f"it did {effect}; a recipe must do no input or output")
        yield CheckResult(name, tried.num, tried.problems)


def material_for(
    recipe: Recipe, *, rows: Sequence[Mapping[str, str]], shared_metrics: Mapping[str, MetricInfo]
) -> Material:
    """Records of `rows`, and records and texts that are made up for the recipe's fields."""
    texts = [*ODD_TEXTS, *_made_up(NUM_MADE_UP_TEXTS)]
    records = [record_of(row, position=i) for i, row in enumerate(rows)]
    given = len(records)
    records += [record_of(dict.fromkeys(recipe.record_fields, text), position=i) for i, text in enumerate(texts)]
    made = [recipe.example(record, index=i) for i, record in enumerate(records)]
    examples = [one for one in made if isinstance(one, Example)]
    return Material(records, texts, shared_metrics, given > 0, examples)


def record_of(fields: Mapping[str, str], *, position: int = 0) -> Record:
    """A record of these fields."""
    return Record.make({**fields}, replace(_PROVENANCE, position=position))


def rendering_problem(recipe: Recipe, record: Record, *, index: int) -> str:
    """What is wrong with the example of a record: empty when it is a named drop, or reads back as it was written."""
    made = recipe.example(record, index=index)
    if isinstance(made, Dropped):
        good = made.reason.isidentifier() and made.reason == made.reason.lower()
        return "" if good else f"dropped for {made.reason!r}, which is not one snake_case word"
    if made.record_ids != (record.id,):
        return f"the example of record {record.id} says it is of {made.record_ids}"
    read = recipe.read(made.prompt, made.completion, "stop_sequence")
    if (read.answer, read.valid, read.reason) != (made.answer, True, ""):
        return (
            f"prompt {made.prompt!r:.80} and completion {made.completion!r:.80} of the answer {made.answer!r:.80} "
            f"read back as {read}"
        )
    return ""


def parsing_problem(recipe: Recipe, text: str) -> str:
    """What is wrong with how a text is read: it is valid, or has a reason."""
    parsed = recipe.parse(text)
    if parsed.valid and parsed.reason:
        return f"{text!r:.80} is valid but has the reason {parsed.reason!r}"
    if not parsed.valid and not parsed.reason:
        return f"{text!r:.80} is not valid and no reason is given"
    return ""


def identity_problem(recipe: Recipe, text: str) -> str:
    """What is wrong with the identity of a text: it must be its own identity."""
    once = recipe.identity(text)
    twice = recipe.identity(once)
    return "" if once == twice else f"the identity of {text!r:.60} is {once!r:.60}, whose identity is {twice!r:.60}"


def _check_rendering(recipe: Recipe, material: Material, tried: _Tried) -> None:
    for index, record in enumerate(material.records):
        tried.see(rendering_problem(recipe, record, index=index))


def _check_examples(recipe: Recipe, material: Material, tried: _Tried) -> None:  # noqa: ARG001  # as the others
    tried.num = len(material.records)
    if not material.examples:
        tried.see(
            f"no record of {len(material.records)} gave an example, so little was checked"
            + ("" if material.own_records else "; give rows of your own with --records FILE")
        )


def _check_parsing(recipe: Recipe, material: Material, tried: _Tried) -> None:
    for text in [*material.texts, *(e.completion for e in material.examples), *(e.prompt for e in material.examples)]:
        tried.see(parsing_problem(recipe, text))


def _check_identity(recipe: Recipe, material: Material, tried: _Tried) -> None:
    for text in [*material.texts, *(example.answer for example in material.examples)]:
        tried.see(identity_problem(recipe, text))


def _check_purity(recipe: Recipe, material: Material, tried: _Tried) -> None:
    for index, record in enumerate(material.records):
        same = recipe.example(record, index=index) == recipe.example(record, index=index)
        tried.see("" if same else f"record {record.fields!r:.120} gives another example the second time")
    for text in material.texts:
        same = recipe.parse(text) == recipe.parse(text)
        tried.see("" if same else f"{text!r:.80} is read in another way the second time")


def _check_prompts(recipe: Recipe, material: Material, tried: _Tried) -> None:  # noqa: ARG001
    seeds = (0, 1, 7, 10_000, 2**31)
    try:
        asked = [recipe.inputs_of_seed(seed) for seed in seeds]
    except Unsupported:
        asked = []
    for inputs in asked:
        try:
            prompt = recipe.prompt(inputs)
        except InvalidInput as error:
            tried.see(f"prompt refuses inputs_of_seed's own {dict(inputs)}: {error.message}")
            continue
        tried.see(
            "" if prompt and prompt == recipe.prompt(inputs) else f"the prompt of {dict(inputs)} is {prompt!r:.80}"
        )
    for inputs in ({}, {"no_such_input": "x"}):
        try:
            tried.see("" if isinstance(recipe.prompt(inputs), str) else f"the prompt of {inputs} is not text")
        except InvalidInput as error:
            tried.see("" if error.message else f"inputs {inputs} are refused without a word")


def _check_attributes(recipe: Recipe, material: Material, tried: _Tried) -> None:
    found: set[str] = set()
    for answer in [*material.texts, *(example.answer for example in material.examples)]:
        attributes = recipe.attributes(answer)
        found |= {name for name, values in attributes.items() if values}
        good = all(isinstance(value, str) for values in attributes.values() for value in values)
        tried.see("" if good else f"attributes of {answer!r:.80} are not texts: {attributes!r:.120}")
    for name in recipe.charts if material.examples else ():
        tried.see("" if name in found else f"the chart {name!r} is of an attribute that no answer has")


def _check_measures(recipe: Recipe, material: Material, tried: _Tried) -> None:
    told = [Answered(example.prompt, example.answer, example) for example in material.examples[:50]]
    silent = [Answered(example.prompt, None, None) for example in material.examples[:10]]
    against = Against([example.answer for example in material.examples], frozenset())
    for answers in ([], told, silent, [*told, *silent]):
        for name, observations in recipe.measures(answers, against).items():
            tried.see("" if name in recipe.metrics else f"measures gives {name!r}, which metrics does not describe")
            right = len(observations) == len(answers)
            tried.see("" if right else f"{name} has {len(observations)} observations for {len(answers)} answers")
        for name in recipe.sample_measures(answers, against):
            tried.see("" if name in recipe.metrics else f"sample_measures gives {name!r}, which metrics lacks")
    for name in recipe.metrics:
        clear = name not in material.shared_metrics
        tried.see("" if clear else f"the metric {name!r} has the name of one that every report has")


def _check_gates(recipe: Recipe, material: Material, tried: _Tried) -> None:
    names = [gate.name for gate in recipe.gates]
    known = {**material.shared_metrics, **recipe.metrics}
    for gate in recipe.gates:
        tried.see("" if names.count(gate.name) == 1 else f"two gates are called {gate.name!r}")
        tried.see("" if gate.why else f"gate {gate.name!r} does not say why it is there")
        tried.see("" if gate.comparison in (">=", "<=") else f"gate {gate.name!r} compares by {gate.comparison!r}")
        described = gate.metric in known
        tried.see(
            "" if described else f"gate {gate.name!r} is on {gate.metric!r}, which no report has: it would always fail"
        )


def _check_defaults(recipe: Recipe, material: Material, tried: _Tried) -> None:  # noqa: ARG001
    for check in (recipe.training.check, lambda: recipe.curation.changed({})):
        try:
            check()
            tried.see("")
        except InvalidInput as error:
            tried.see(error.message)
    tried.see("" if recipe.title.strip() else "the title is empty")
    tried.see("" if recipe.record_fields else "record_fields is empty")
    tried.see("" if all(recipe.generation.stop) else "a stop sequence is empty")


CHECKS: Mapping[str, Callable[[Recipe, Material, _Tried], None]] = {
    "what it renders it can read": _check_rendering,
    "records give examples": _check_examples,
    "any text is read, and bad text has a reason": _check_parsing,
    "an identity is its own identity": _check_identity,
    "the same record and text give the same": _check_purity,
    "prompts follow from inputs, and bad inputs are refused": _check_prompts,
    "attributes are texts, and charts are of attributes": _check_attributes,
    "measures are one an answer, and described": _check_measures,
    "gates are on metrics that are measured": _check_gates,
    "defaults lie within their ranges": _check_defaults,
}
"""Every check by what it says."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note what input and output this thread does in the block: connections, processes, files other than code."""
    noted: list[str] = []
    before = getattr(_watch, "noted", None)
    if not _watch_installed:
        # Audit hooks cannot be removed, so there is one, which does nothing outside of a block.
        _watch_installed.append(True)
        sys.addaudithook(_audit)
    _watch.noted = noted
    try:
        yield noted
    finally:
        _watch.noted = before


_watch = threading.local()
_watch_installed: list[bool] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    noted = getattr(_watch, "noted", None)
    if noted is None or len(noted) >= MAX_PROBLEMS:
        return
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")):
        noted.append(f"{event}{arguments[1:]!r:.80}")
    elif event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")):
        noted.append(f"open({arguments[0]!r:.80})")


def _made_up(number: int) -> Iterator[str]:
    """Texts of letters, marks and pieces of ODD_TEXTS, always the same ones."""
    rng = random.Random(20260101)
    letters = (
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789      ''-&éüñßжд東🎵\n\t,.;:|<>{}[]()#*_/\\\""
    )
    for _ in range(number):
        if rng.random() < 0.2:
            yield rng.choice(ODD_TEXTS) + rng.choice(ODD_TEXTS)
        else:
            yield "".join(rng.choice(letters) for _ in range(rng.randrange(1, 60)))
