"""Examples: prompt and completion, with the ids of the records they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_bucket(key: str, *, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """The split that a normalised answer belongs to when nothing else decides.

    It depends on the text and the shares alone, so that whoever trains a base model on sample text can leave out just
    what a dataset holds out, without knowing that dataset. A text's place is the same whatever the shares: with larger
    ones, rows only move from `train` to `validation` and from there to `test`.
    """
    digest = hashlib.sha256(key.casefold().strip().encode()).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    place = (percent + int.from_bytes(digest[8:16], "big") / 2**64) / 100
    if place < 1 - validation_share - test_share:
        return "train"
    return "validation" if place < 1 - test_share else "test"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One training pair. `answer` is the parsed answer in normal form: what duplicates and novelty are judged by."""

    id: str
    prompt: str
    completion: str
    answer: str
    record_ids: tuple[str, ...]
    attributes: Mapping[str, str]
    """Facts to balance and to chart by (`language`, `family`, ...)."""
    messages: tuple[Message, ...] = ()
    """The pair as a chat (system, user, assistant), for recipes whose rows are chats; `prompt` and `completion` are its
    rendering."""

    def to_json(self) -> dict[str, Any]:
        """The example as one JSON row of a dataset shard; `messages` only where there are any."""
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": self.prompt,
            "completion": self.completion,
            "answer": self.answer,
            "record_ids": list(self.record_ids),
            "attributes": dict(self.attributes),
        }
        if self.messages:
            row["messages"] = [{"role": m.role, "content": m.content} for m in self.messages]
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Example:
        """The inverse of `to_json`."""
        return Example(
            id=row["id"],
            prompt=row["prompt"],
            completion=row["completion"],
            answer=row["answer"],
            record_ids=tuple(row["record_ids"]),
            attributes=dict(row["attributes"]),
            messages=tuple(Message(m["role"], m["content"]) for m in row.get("messages", ())),
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a record or example was left out. `reason` is a short snake_case word, counted in the manifest."""

    reason: str
    detail: str = ""
