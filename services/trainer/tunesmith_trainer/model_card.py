"""The model card: what a published model is, what it was made of and what was measured. Pure text from stored facts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tunesmith.domain.datasets import Dataset
from tunesmith.domain.models import Measure, MetricInfo, ModelVersion, Report
from tunesmith.domain.publications import Form
from tunesmith.domain.records import Collection
from tunesmith.domain.runs import Run
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.evaluation.metrics import described, formatted

BUILTIN_PREFIX = "builtin:"

_HUB_LICENCES = {
    name.lower(): name.lower()
    for name in (
        "Apache-2.0",
        "MIT",
        "CC0-1.0",
        "CC-BY-2.0",
        "CC-BY-2.5",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC-BY-NC-2.0",
        "CC-BY-NC-3.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-3.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-ND-4.0",
        "ODbL-1.0",
        "PDDL-1.0",
        "BSD-3-Clause",
        "GPL-3.0",
        "Unlicense",
    )
} | {"odbl-1.0": "odbl", "pddl-1.0": "pddl"}
"""SPDX identifiers (lower case) -> the Hub's names, from its list of licences."""

_SUBJECTS = ("base", "champion", "candidate")
_COLUMNS = {"base": "base", "champion": "champion before", "candidate": "this model"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells of."""

    recipe: Recipe
    version: ModelVersion
    report: Report
    run: Run
    dataset: Dataset
    collections: Sequence[Collection]
    """Those of the dataset, and those they were derived from."""
    form: Form
    base_name: str
    """How the base is called outside."""
    served: str
    """What is known of the served answers against the judged ones; empty for nothing."""
    repo_id: str
    software: str
    """Name and version of the program that made the model."""


def model_card(facts: CardFacts) -> str:
    """Markdown with the Hub's YAML front matter. The same facts give the same text."""
    sections = (
        _front_matter(facts),
        f"# {_line(facts.repo_id or facts.version.id)}",
        _summary(facts),
        "## How to load it",
        _loading(facts),
        "## What was measured",
        _measures(facts),
        _gates(facts.report),
        "## What it was made of",
        _sources(facts),
        "## Lineage",
        _lineage(facts),
        "## Intended use and limits",
        _limits(facts),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def hub_licence(licences: Mapping[str, int]) -> dict[str, str]:
    """The front matter's licence: the data's, where there is exactly one that the Hub knows; else `other`, with a name.

    A model's licence is its owner's to choose; what is stated is what its data allow.
    """
    known = [name for name, count in licences.items() if count]
    if len(known) == 1 and (name := _HUB_LICENCES.get(known[0].lower())):
        return {"license": name}
    name = "several-see-model-card" if len(known) > 1 else (known[0] if known else "unknown")
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", name.lower()) or "unknown"}


def _front_matter(facts: CardFacts) -> str:
    rows: dict[str, Any] = hub_licence(facts.dataset.licences)
    if not facts.base_name.startswith(BUILTIN_PREFIX) and "/" in facts.base_name:
        rows["base_model"] = facts.base_name
        rows["base_model_relation"] = "adapter" if facts.form == "adapter" else "finetune"
    rows["library_name"] = "peft" if facts.form == "adapter" else "transformers"
    rows["pipeline_tag"] = "text-generation"
    rows["tags"] = ["tunesmith", facts.recipe.name.replace("_", "-"), "music", *(["lora"] * (facts.form == "adapter"))]
    # JSON's scalars and lists are YAML's, and so nothing in them can be taken for anything else.
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in rows.items()), "---"])


def _summary(facts: CardFacts) -> str:
    what = "A LoRA adapter for" if facts.form == "adapter" else "A model with a LoRA adapter merged into"
    verdict = "It passed all its gates." if facts.report.passed else "**It did not pass its gates; see below.**"
    return f"{what} `{_line(facts.base_name)}`, tuned for: {_line(facts.recipe.title)}. {verdict}"


def _loading(facts: CardFacts) -> str:
    where = json.dumps(facts.repo_id or "PATH_OF_THIS_FOLDER")
    if facts.form == "merged":
        code = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({where})",
            f"model = AutoModelForCausalLM.from_pretrained({where})",
        ]
        note = (
            "The configs carry the names of transformers 4 (`rope_theta`, `torch_dtype`) beside those of 5; "
            "text-generation-inference and vLLM load the folder as it is."
        )
    else:
        base = json.dumps(facts.base_name)
        code = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({base})",
            f"model = PeftModel.from_pretrained(base, {where})",
            f"tokenizer = AutoTokenizer.from_pretrained({where})",
        ]
        note = ""
        if facts.base_name.startswith(BUILTIN_PREFIX) or "/" not in facts.base_name:
            note = (
                f"`{_line(facts.base_name)}` is not on the Hub (fingerprint `{facts.version.base_fingerprint}`); "
                "give the folder that holds it, or use the merged form of this model, which needs no base."
            )
    prompt = facts.recipe.generation.stop
    stop = f"Answers end with {', '.join(f'`{_line(s)}`' for s in prompt)}." if prompt else ""
    return "\n".join(["```python", *code, "```", *(["", note] if note else []), *(["", stop] if stop else [])])


def _measures(facts: CardFacts) -> str:
    report, infos = facts.report, described(facts.recipe)
    subjects = [subject for subject in _SUBJECTS if subject in report.metrics]
    shown = [name for name in infos if name in report.metrics.get("candidate", {})]
    header = ["metric", *(_COLUMNS[subject] for subject in subjects), "better"]
    rows = [
        [
            infos[name].title,
            *(_measured(report.metrics[subject].get(name), infos[name]) for subject in subjects),
            infos[name].better,
        ]
        for name in shown
    ]
    return f"With 95 % intervals; report `{report.id}`.\n\n{_table(header, rows)}"


def _measured(measure: Measure | None, info: MetricInfo) -> str:
    if measure is None:
        return ""
    low, high = formatted(measure.low, info), formatted(measure.high, info)
    return f"{formatted(measure.value, info)} ({low} to {high})"


def _gates(report: Report) -> str:
    rows = [[gate.name, "passed" if gate.passed else "**not passed**", gate.detail] for gate in report.gates]
    return _table(["gate", "verdict", "why"], rows)


def _sources(facts: CardFacts) -> str:
    dataset = facts.dataset
    counts = ", ".join(f"{count} {split}" for split, count in dataset.num_examples.items())
    licences = _table(["licence", "records"], [[name, str(n)] for name, n in sorted(dataset.licences.items())])
    rows = [
        [
            _source_name(collection.source) + (f" (with {collection.derived_by})" if collection.derived_by else ""),
            str(collection.num_records),
            ", ".join(f"{name} {n}" for name, n in sorted(collection.licences.items())),
        ]
        for collection in facts.collections
    ]
    dropped = Counter(dict(dataset.dropped))
    lost = f" Left out: {', '.join(f'{reason} {n}' for reason, n in sorted(dropped.items()))}." if dropped else ""
    return (
        f"{dataset.num_records} records, of which {counts} examples.{_cell(lost)}\n\n"
        f"{_table(['source', 'records', 'licences'], rows)}\n\n{licences}"
    )


def _source_name(source: str) -> str:
    """A source's address; of a file of the machine it was read on, its name alone."""
    parts = urlsplit(source)
    if parts.scheme in ("http", "https"):
        # Neither a password nor a signature in an address is for others to read.
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if parts.scheme == "file" or source.startswith(("/", "~", ".")):
        return PurePosixPath(unquote(parts.path)).name or "a local file"
    return source


def _lineage(facts: CardFacts) -> str:
    rows = [
        ["model version", facts.version.id],
        ["run", f"{facts.run.id}, {facts.run.num_steps} steps"],
        ["dataset", facts.dataset.id],
        *(["collection", collection.id] for collection in facts.collections),
        ["adapter, SHA-256 of its weights", facts.version.adapter_hash],
        ["base", f"{facts.base_name}, fingerprint {facts.version.base_fingerprint}"],
        ["judged", facts.report.created_at],
        ["made with", facts.software],
    ]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(facts.run.settings.items()))
    return f"{_table(['what', 'id'], rows)}\n\nTraining settings: {_cell(settings)}."


def _limits(facts: CardFacts) -> str:
    lines = [
        f"- It is made for one task: {_line(facts.recipe.title)}. Other prompts were neither trained nor judged.",
        "- Its gates are what stands above and nothing more: nobody has judged its answers for truth or offence.",
        "- Use of its answers is bound by the licences of its base model and of its data, listed above.",
    ]
    failed = [gate.name for gate in facts.report.gates if not gate.passed]
    if failed:
        lines.append(f"- It was refused by its gates ({', '.join(failed)}) and is published for study only.")
    if facts.base_name.startswith(BUILTIN_PREFIX):
        lines.append("- Its base is a model of a few million parameters that knows a small sample text and no more.")
    lines.append(f"- Served answers against judged ones: {_line(facts.served) if facts.served else 'not checked.'}")
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _line(text: str) -> str:
    """Text of others on one line, without what Markdown or HTML would act on."""
    return _cell(text).replace("`", "'")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
