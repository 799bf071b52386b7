"""What a client sees of the pieces, and when."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rllm.engine.text import Pieces, StopAutomaton, TextAssembler


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    text = TextAssembler()
    euro = "€".encode()
    assert text.feed(euro[:1]) == ""
    assert text.feed(euro[1:2]) == ""
    assert text.feed(euro[2:]) == "€"


def test_bytes_that_are_no_character_are_replaced_at_the_end() -> None:
    text = TextAssembler()
    assert text.feed(b"a\xe2") == "a"
    assert text.flush() == "�"


def test_a_stop_string_across_pieces_is_never_shown() -> None:
    text = TextAssembler(("END",))
    assert text.feed(b"hello E") == "hello "
    assert text.feed(b"N") == ""
    assert text.feed(b"D more") == ""
    assert text.stop_string == "END"
    assert text.flush() == ""


def test_what_looked_like_a_stop_string_is_shown_once_it_is_none() -> None:
    text = TextAssembler(("aab",))
    assert text.feed(b"aaa") == "a"
    assert text.feed(b"c") == "aac"


def test_an_ignored_stop_string_stays_in_the_text() -> None:
    text = TextAssembler(("x",))
    assert text.feed(b"axb", may_stop=False) + text.flush() == "axb"
    assert text.stop_string is None


@pytest.mark.parametrize(
    ("stops", "said", "seen"), [(("b", "abc"), "zabc", "za"), (("bc", "abc"), "zabc", "z")]
)
def test_the_stop_string_that_is_complete_first_ends_the_text(
    stops: tuple[str, ...], said: str, seen: str
) -> None:
    text = TextAssembler(stops)
    assert text.feed(said.encode()) + text.flush() == seen


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.text("abc", max_size=3), max_size=8),
)
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    """However the text is cut, what is seen is the text up to the first complete stop string."""
    text = TextAssembler(tuple(stops))
    seen = ""
    for piece in pieces:
        if text.stop_string is None:
            seen += text.feed(piece.encode())
    seen += text.flush()
    whole = "".join(pieces)
    ends = [(end, stop) for end in range(len(whole) + 1) for stop in stops if whole[:end].endswith(stop)]
    if ends:
        first = min(end for end, _ in ends)
        longest = max(len(stop) for end, stop in ends if end == first)
        assert seen == whole[: first - longest]
    else:
        assert seen == whole


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4), st.text("ab", max_size=12))
def test_what_is_held_back_is_the_longest_possible_beginning(stops: list[str], said: str) -> None:
    seen = StopAutomaton(tuple(stops)).see(0, said, may_stop=False)
    beginnings = [
        len(stop[:size]) for stop in stops for size in range(len(stop) + 1) if said.endswith(stop[:size])
    ]
    assert seen.depth == max(beginnings)
    assert seen.stop is None


def test_pieces_are_text_where_they_are_whole_characters() -> None:
    said = {1: b" word", 2: "日本".encode(), 3: "日".encode()[:2], 4: b""}
    pieces = Pieces(said.__getitem__)
    assert [pieces[token] for token in said] == [" word", "日本", said[3], ""]


@given(
    st.lists(st.sampled_from(["a", "é", "日", "🦙"]), max_size=6).map("".join),
    st.lists(st.integers(0, 12), max_size=6),
)
def test_text_and_bytes_make_the_same_text(said: str, cuts: list[int]) -> None:
    """Whether a piece comes as text or as bytes, and wherever characters are cut."""
    whole = said.encode()
    ends = sorted({cut for cut in cuts if cut < len(whole)} | {len(whole)})
    spans = dict(enumerate(whole[start:end] for start, end in zip([0, *ends], ends, strict=False)))
    pieces, text = Pieces(spans.__getitem__), TextAssembler(("never",))
    assert "".join(text.feed(pieces[token]) for token in spans) + text.flush() == said
