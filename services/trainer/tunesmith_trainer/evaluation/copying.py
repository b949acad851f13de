"""Copying: the longest run of characters that an answer shares with the training set, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

SEPARATOR = ""
"""Ends an answer in the automaton; no character of a text equals it."""

ROWS_BETWEEN_CHECKS = 5_000


def longest_copied_spans(
    answers: Sequence[str], rows: Iterable[str], *, check: Callable[[], None] = lambda: None
) -> list[int]:
    """For each answer the length of its longest substring that is also a substring of one of `rows`.

    Exact and linear: the suffix automaton (Blumer et al. 1985) of the few answers is built once, and the many rows
    are read through it, so memory follows the answers and not the training set. `check` is called now and then and
    may raise.
    """
    transitions, links, lengths, states = _automaton(answers)
    matched = [0] * len(lengths)
    for number, row in enumerate(rows):
        if number % ROWS_BETWEEN_CHECKS == 0:
            check()
        state, length = 0, 0
        for char in row:
            step = transitions[state].get(char)
            if step is not None:
                state, length = step, length + 1
            else:
                while state and char not in transitions[state]:
                    state = links[state]
                step = transitions[state].get(char)
                if step is None:
                    length = 0
                    continue
                state, length = step, lengths[state] + 1
            if length > matched[state]:
                matched[state] = length
    by_length = sorted(range(1, len(lengths)), key=lengths.__getitem__)
    for state in reversed(by_length):
        if matched[state] and links[state]:
            matched[links[state]] = lengths[links[state]]
    for state in by_length:
        if not matched[state]:
            matched[state] = matched[links[state]]
    return [max((matched[state] for state in path), default=0) for path in states]


def _automaton(answers: Sequence[str]) -> tuple[list[dict[str, int]], list[int], list[int], list[list[int]]]:
    """The suffix automaton of the answers with a separator after each, and each answer's states by position."""
    transitions: list[dict[str, int]] = [{}]
    links = [0]
    lengths = [0]
    paths: list[list[int]] = []
    last = 0
    for answer in answers:
        path: list[int] = []
        for char in (*answer, SEPARATOR):
            new = len(lengths)
            transitions.append({})
            links.append(0)
            lengths.append(lengths[last] + 1)
            state: int | None = last
            while state is not None and char not in transitions[state]:
                transitions[state][char] = new
                state = links[state] if state else None
            if state is not None:
                target = transitions[state][char]
                if lengths[target] == lengths[state] + 1:
                    links[new] = target
                else:
                    clone = len(lengths)
                    transitions.append(dict(transitions[target]))
                    links.append(links[target])
                    lengths.append(lengths[state] + 1)
                    while state is not None and transitions[state].get(char) == target:
                        transitions[state][char] = clone
                        state = links[state] if state else None
                    links[target] = links[new] = clone
            last = new
            path.append(new)
        paths.append(path[:-1])
    return transitions, links, lengths, paths
