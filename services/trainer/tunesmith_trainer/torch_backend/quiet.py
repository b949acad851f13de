"""Keeping the libraries' own noise out of logs: progress bars, and warnings that only the libraries can act on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from datasets.utils.logging import disable_progress_bar as disable_datasets_progress_bar
from transformers.utils.logging import disable_progress_bar as disable_transformers_progress_bar


def without_progress_bars() -> None:
    """Turn off the bars of transformers and datasets for this process; progress is reported through callbacks."""
    disable_transformers_progress_bar()  # type: ignore[no-untyped-call]
    disable_datasets_progress_bar()


@contextmanager
def without_library_warnings() -> Iterator[None]:
    """Silence what PEFT 0.21 provokes in transformers 5.23 by reading a renamed attribute; delete with PEFT's fix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
