"""What is printed: JSON for programs, tables and trees for people, both made from protobuf messages."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tunesmith.domain.ids import canonical_json
from tunesmith.recipes.chat import user_text
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.trainer.v1 import models_pb2

PIPED_WIDTH = 160
"""Columns of a table that no terminal limits."""

_CONTROL = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """Text without control characters: what a model or a page wrote must not steer the terminal."""
    return text.translate(_CONTROL)


class Output:
    """Standard output, for people or (`json`) for programs. Notes for people go to standard error."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._console = _console(stderr=False)
        self.notes = _console(stderr=True)

    def show(self, *renderables: RenderableType) -> None:
        """Print for people; nothing under --json. Plain text is cleaned of control characters."""
        if self.json:
            return
        for item in renderables:
            self._console.print(Text(clean(item)) if isinstance(item, str) else item, soft_wrap=isinstance(item, str))

    def piece(self, text: str) -> None:
        """Print a piece of a line for people, at once."""
        if not self.json:
            sys.stdout.write(clean(text))
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell people what is going on, beside the result."""
        if not self.json:
            self.notes.print(Text(clean(text)), soft_wrap=True)

    def document(self, value: Message | Mapping[str, Any]) -> None:
        """Print one JSON document on a line; nothing without --json."""
        if self.json:
            sys.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
            sys.stdout.flush()

    def result(self, document: Message | Mapping[str, Any], *renderables: RenderableType) -> None:
        """Print the document for programs, or the renderables for people."""
        self.document(document)
        self.show(*renderables)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    return console


def plain(value: Any) -> Any:
    """Messages, mappings and sequences as JSON values.

    Unlike proto3's own JSON mapping: 64-bit integers are numbers, names stay snake_case, every field is there, unset
    ones as null (members of a oneof only when set), and NaN and infinities are null.
    """
    if isinstance(value, Timestamp):
        return value.ToJsonString() if value.ByteSize() else None
    if isinstance(value, Struct):
        return {key: _plain_struct_value(item) for key, item in value.fields.items()}
    if isinstance(value, Message):
        return _plain_message(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str | int | bool) or value is None:
        return value
    return [plain(item) for item in value]


def _plain_message(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            # `optional` makes a hidden oneof, named with an underscore.
            if field.containing_oneof is None or field.containing_oneof.name.startswith("_"):
                row[field.name] = None
            continue
        value = getattr(message, field.name)
        if field.enum_type is not None:
            names = field.enum_type.values_by_number
            row[field.name] = [_name(names, v) for v in value] if field.is_repeated else _name(names, value)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            row[field.name] = {str(key): plain(value[key]) for key in sorted(value)}
        else:
            row[field.name] = plain(value)
    return row


def _name(names: Mapping[int, Any], number: int) -> str:
    return str(names[number].name) if number in names else str(number)


def _plain_struct_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain(value.struct_value)
    if kind == "list_value":
        return [_plain_struct_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else plain(number)
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def ago(moment: Timestamp, *, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits: `2 minutes ago`."""
    if not moment.ByteSize():
        return "at an unknown time"
    seconds = ((now or datetime.now(UTC)) - moment.ToDatetime(tzinfo=UTC)).total_seconds()
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count = int(seconds // length_s)
        if count >= 1:
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "just now"


def duration_text(seconds: float) -> str:
    """In the largest unit that divides it: `6h`; empty for none."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length_s == 0:
            return f"{int(seconds // length_s)}{unit}"
    return f"{seconds:g}s" if seconds else ""


def number(value: float) -> str:
    """A measured number in four significant digits."""
    return f"{value:.4g}"


def counts(values: Mapping[str, int]) -> str:
    """`train 1560, validation 195`, the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(values.items(), key=lambda row: (-row[1], row[0])))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """A table for people; an id that does not fit is wrapped, never cut."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(clean(str(cell))) for cell in row))
    return made


def facts(rows: Mapping[str, object]) -> RenderableType:
    """Names and values of one thing, a line each; empty values are left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in rows.items():
        if value not in ("", None):
            made.add_row(name, Text(clean(str(value))))
    return made


def settings_text(settings: Struct) -> str:
    """Settings as `name=value` words."""
    return " ".join(f"{name}={_setting(value)}" for name, value in sorted(plain(settings).items()))


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()


def phase_name(job: jobs_pb2.Job) -> str:
    """`running`, `failed`, ... in the words of the domain."""
    return jobs_pb2.JobPhase.Name(job.phase).removeprefix("JOB_PHASE_").lower()


def progress_text(progress: jobs_pb2.Progress) -> str:
    """`tune 40/120 steps  train_loss 2.31`."""
    words = [progress.stage]
    if progress.total:
        words.append(f"{progress.done}/{progress.total} {progress.unit}".rstrip())
    elif progress.done:
        words.append(f"{progress.done} {progress.unit}".rstrip())
    words += [values_text(progress.values), progress.message]
    return "  ".join(word for word in words if word)


def values_text(values: Mapping[str, float]) -> str:
    """Live values such as losses, by name."""
    return "  ".join(f"{name} {number(value)}" for name, value in sorted(values.items()))


_DIFFERENCES = ("_minus_base", "_minus_champion")
"""Endings of metrics that only restate two columns; gates use them, and the report's page shows them."""


def measures_table(report: models_pb2.Report, *, only_gated: bool = False) -> RenderableType:
    """Base, tuned candidate and, where there was one, the champion before, metric by metric.

    `only_gated` shows what the recipe's gates decide by; the whole of it is much to read at the end of a run.
    """
    subjects = [("base", "base"), ("candidate", "tuned")]
    if "champion" in report.metrics:
        subjects.append(("champion", "champion before"))
    names = sorted(
        {name for subject, _ in subjects for name in _measures(report, subject) if not name.endswith(_DIFFERENCES)}
    )
    if only_gated:
        names = [name for name in names if name in {gate.metric for gate in report.gates}]
    rows = [[name, *(_interval(_measures(report, subject).get(name)) for subject, _ in subjects)] for name in names]
    return table("base v tuned, with 95 % intervals", ["metric", *(title for _, title in subjects)], rows)


def anchors_line(report: models_pb2.Report) -> str:
    """Model-free values on the same rows, to read the measures by."""
    return "for reference: " + values_text(report.anchors).replace("  ", ", ") if report.anchors else ""


def _measures(report: models_pb2.Report, subject: str) -> Mapping[str, models_pb2.Measure]:
    # Reading a missing key of a protobuf map would create it.
    return report.metrics[subject].measures if subject in report.metrics else {}


def _interval(measure: models_pb2.Measure | None) -> str:
    if measure is None:
        return "-"
    if measure.low == measure.high:
        return number(measure.value)
    return f"{number(measure.value)} [{number(measure.low)}, {number(measure.high)}]"


def gates_table(report: models_pb2.Report) -> RenderableType:
    """Every gate's verdict on a report."""
    rows = [
        [
            Text("passed", "green") if gate.passed else Text("failed", "bold red"),
            gate.name,
            f"{gate.metric} {number(gate.value) if gate.HasField('value') else 'missing'}",
            f"{gate.comparison} {number(gate.limit)}",
            gate.detail,
        ]
        for gate in report.gates
    ]
    return table("gates", ["verdict", "gate", "measured", "rule", "why"], rows)


def refusal_lines(report: models_pb2.Report) -> list[str]:
    """Which gates a candidate failed, and why."""
    failed = [gate for gate in report.gates if not gate.passed]
    lines = [f"refused: model {report.model_version} did not pass {len(failed)} of {len(report.gates)} gates"]
    for gate in failed:
        value = number(gate.value) if gate.HasField("value") else "missing"
        lines.append(f"  {gate.name}: {gate.metric} is {value}, the rule is {gate.comparison} {number(gate.limit)}")
        if gate.detail:
            lines.append(f"    {gate.detail}")
    return lines


def parity_lines(report: models_pb2.Report) -> list[str]:
    """`served = judged: 8 of 8 prompts, ...`; nothing while the version was never to become champion."""
    if not report.HasField("parity"):
        return []
    check = report.parity
    return [check.detail if check.checked else f"served = judged: {check.detail}"]


def answers_table(title: str, answers: Sequence[generator_pb2.Answer]) -> RenderableType:
    """Answers as a numbered list with their seeds, what a chat asked, and a remark on those known or out of format."""
    columns = {
        "no.": [str(n) for n in range(1, len(answers) + 1)],
        "seed": [seed_text(answer) for answer in answers],
        "asked": [user_text(answer.prompt) for answer in answers],
        "answer": [answer.text for answer in answers],
        "remark": [remark(answer) for answer in answers],
    }
    shown = [name for name, cells in columns.items() if any(cells) or name == "answer"]
    return table(title, shown, zip(*(columns[name] for name in shown), strict=True))


def seed_text(answer: generator_pb2.Answer) -> str:
    """The seed that gives this answer again; `-` when it does not hang on one."""
    return str(answer.seed) if answer.HasField("seed") else answer.inputs.get("seed", "-")


def remark(answer: generator_pb2.Answer) -> str:
    """What a reader should know about an answer; empty when it is valid and new."""
    if not answer.valid:
        return f"not valid: {answer.invalid_reason or 'out of format'}"
    return "in the training data" if answer.known else ""
