"""How a language model is asked for training pairs, and how what it says is read. Pure; one writer a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from tunesmith.domain.examples import Dropped
from tunesmith.domain.records import Record

Mode = Literal["rewrite", "invent"]
"""`rewrite` makes a pair of a collected record; `invent` lets the model make up all of it."""

_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)


class BadReply(ValueError):
    """A reply that makes no pair. `reason` is a short snake_case word that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class PairWriter(Protocol):
    """The questions of one recipe."""

    version: str
    """Name and number of the questions; part of what a collection was derived by. It changes with their wording."""
    max_new_tokens: int
    """Tokens that a good reply needs at most, with room to spare."""

    def rewrite_question(self, record: Record, *, number: int) -> str | Dropped:
        """What to ask about a record, or why there is nothing to ask. `number` counts records from 0 and varies the
        wording."""
        ...

    def invent_question(self, *, number: int, seed: int) -> str:
        """What to ask for a pair of the model's own. Equal arguments give equal questions."""
        ...

    def pair(self, reply: str, record: Record | None) -> Mapping[str, str]:
        """The fields that a reply adds to its record (None for an invented one); BadReply says why there are none."""
        ...


def json_object(reply: str) -> Mapping[str, Any]:
    """The JSON object in a reply, out of code fences and of what was said around it.

    BadReply `empty_reply`, `not_json` or `not_an_object`.
    """
    text = reply.strip()
    if not text:
        raise BadReply("empty_reply")
    fenced = _FENCE.search(text)
    body = fenced[1] if fenced else text
    start = body.find("{")
    if start < 0:
        raise BadReply("not_json", text[:80])
    try:
        found, _ = json.JSONDecoder().raw_decode(body, start)
    except (ValueError, RecursionError) as error:
        raise BadReply("not_json", str(error)[:80]) from error
    if not isinstance(found, dict):
        raise BadReply("not_an_object")
    return found
