from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_generator.runners.text import TextStream


def decode(ids: Sequence[int]) -> str:
    """A tokenizer of bytes."""
    return bytes(ids).decode(errors="replace")


def decode_words(ids: Sequence[int]) -> str:
    """A tokenizer that, like SentencePiece, drops the space before the first word of whatever it is given."""
    return "".join([" one", " two", " three"][i] for i in ids).removeprefix(" ")


def pieces(stream: TextStream, data: bytes) -> list[str]:
    return [stream.push(byte) for byte in data]


def test_a_character_of_several_tokens_comes_out_whole_with_its_last_token() -> None:
    stream = TextStream(decode, prompt_ids=b"12->", stop=())

    assert pieces(stream, "aé🎵b".encode()) == ["a", "", "é", "", "", "", "🎵", "b"]


def test_bytes_that_never_become_a_character_come_out_at_the_end() -> None:
    stream = TextStream(decode, prompt_ids=b"12->", stop=())

    streamed = [*pieces(stream, b"a\xf0\x9f"), stream.flush()]

    assert streamed == ["a", "", "", "\ufffd"]
    assert stream.text == "a\ufffd"


@given(prompt=st.text(), data=st.binary(max_size=40))
def test_pieces_always_concatenate_to_the_decoded_whole(prompt: str, data: bytes) -> None:
    stream = TextStream(decode, prompt_ids=prompt.encode(errors="replace"), stop=())

    streamed = "".join([*pieces(stream, data), stream.flush()])

    assert streamed == stream.text == data.decode(errors="replace")


def test_the_space_between_prompt_and_answer_is_kept() -> None:
    stream = TextStream(decode_words, prompt_ids=[0], stop=())

    assert [stream.push(1), stream.push(2)] == [" two", " three"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_stop_sequence_is_found_however_tokens_cut_it(size: int) -> None:
    tokens = ["xx|<st"[i : i + size] for i in range(0, 6, size)] + ["op>| and more"]
    stream = TextStream(lambda ids: "".join(tokens[i] for i in ids), prompt_ids=[], stop=("nothing", "|<stop>|"))

    streamed = [stream.push(i) for i in range(len(tokens))]

    assert stream.stopped
    assert stream.text == "".join(streamed) == "xx|<stop>|"


def test_the_stop_sequence_that_ends_first_wins() -> None:
    stream = TextStream(lambda ids: "a long text" if ids else "", prompt_ids=[], stop=("long text", "ng", "a l"))

    assert stream.push(0) == "a l"


def test_a_stop_sequence_in_the_prompt_does_not_count() -> None:
    stream = TextStream(decode, prompt_ids=b"|<stop>|", stop=("|<stop>|", ">|a"))

    stream.push(ord("a"))

    assert not stream.stopped
