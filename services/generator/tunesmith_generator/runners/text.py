"""Generated token ids as growing text: characters whole, stop sequences found wherever they fall. Free of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What decoders put for bytes that are not (yet) a character."""

CONTEXT_TOKENS = 5
"""Prompt tokens decoded along with the first answer tokens, so that a tokenizer keeps the space between the two.

The number is text-generation-inference's.
"""


class TextStream:
    """Decodes one answer token by token. The concatenated pieces are the whole text.

    A piece is empty while its token ends in the middle of a character, as in text-generation-inference; the piece that
    completes the character carries it, and `flush` what never became one.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, prompt_ids: Sequence[int], stop: Sequence[str]
    ) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._longest_stop = max(map(len, stop), default=0)
        self._window = list(prompt_ids[-CONTEXT_TOKENS:])
        """Tokens of the last whole piece (for context) and those after it."""
        self._num_context = len(self._window)
        self._context_text = decode(self._window)
        self.text = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Add a token and return the text that it completes."""
        self._window.append(token_id)
        window_text = self._decode(self._window)
        piece = window_text[len(self._context_text) :]
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        self._window = self._window[self._num_context :]
        self._num_context = len(self._window)
        self._context_text = self._decode(self._window)
        return self._append(piece)

    def flush(self) -> str:
        """Give what is held back, with U+FFFD for bytes that never became a character."""
        piece = self._decode(self._window)[len(self._context_text) :]
        self._window, self._num_context, self._context_text = [], 0, ""
        return self._append(piece)

    def _append(self, piece: str) -> str:
        """Append `piece` up to the first stop sequence, which stays."""
        before = len(self.text)
        text = self.text + piece
        search_from = max(0, before - self._longest_stop + 1)
        ends = [start + len(stop) for stop in self._stop if (start := text.find(stop, search_from)) >= 0]
        if ends:
            self.stopped = True
            text = text[: min(ends)]
        self.text = text
        return text[before:]
