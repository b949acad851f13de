"""Chats as text: ChatML, which many instruction-tuned bases were trained on and any other can learn.

One fixed rendering, not the base's own template: what is trained, judged and served is then the same text on every
backend, whatever tokenizer it has.
"""

from __future__ import annotations

import re

from tunesmith.domain.examples import Message

END_OF_TURN = "<|im_end|>"
"""Ends every turn; the stop sequence of a chat recipe."""

_START = "<|im_start|>"
_MARKS = re.compile(r"<\|im_(?:start|end)\|>")
_ANSWER = f"{_START}assistant\n"


def chat_prompt(system: str, user: str) -> str:
    """Everything up to where the assistant writes. Marks inside the texts are removed: they could forge a turn."""
    return f"{_START}system\n{_clean(system)}{END_OF_TURN}\n{_START}user\n{_clean(user)}{END_OF_TURN}\n{_ANSWER}"


def chat_completion(answer: str) -> str:
    """What the assistant writes, with its end."""
    return f"{_clean(answer)}{END_OF_TURN}"


def chat_messages(system: str, user: str, answer: str) -> tuple[Message, ...]:
    """The same turns as messages."""
    return Message("system", _clean(system)), Message("user", _clean(user)), Message("assistant", _clean(answer))


def assistant_text(text: str) -> str:
    """The assistant's part of prompt and completion together, without its end; all of a text that has no prompt."""
    written = text.rpartition(_ANSWER)[2]
    return written.removesuffix(END_OF_TURN)


def user_text(prompt: str) -> str:
    """What the user said last in a rendered prompt; empty for a text that is none."""
    return prompt.rpartition(f"{_START}user\n")[2].partition(END_OF_TURN)[0] if _START in prompt else ""


def _clean(text: str) -> str:
    # Repeated, because removing a mark can make a new one of what stood around it.
    while _MARKS.search(text):
        text = _MARKS.sub("", text)
    return text
