"""No text of a user can become a control token, and ordinary text is left alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllm.api.text.control_text import ControlTexts, Piece
from rllm.errors import BadRequest

CONTROLS = ("<|a|>", "<|ab|>", "</s>", "[I]")
_ANY_CONTROL = re.compile("|".join(map(re.escape, CONTROLS)))
PARTS = ["<", "<|", "<|a", "a", "b", "b|>", "|>", ">", "</", "s>", "[", "I]", "<|a|>", "</s>", " ", "\n"]
texts = st.lists(st.sampled_from(PARTS), max_size=4).map("".join)


def controls_read(pieces: list[Piece]) -> list[str]:
    return [match for piece in pieces if piece.parse_special for match in _ANY_CONTROL.findall(piece.text)]


@settings(max_examples=600)
@given(st.lists(texts, min_size=1, max_size=3), st.booleans(), st.sampled_from(["", "\n", "<|ab|>", "</s>"]))
def test_only_the_templates_own_controls_are_read(contents: list[str], trims: bool, between: str) -> None:
    """Also where two messages stand side by side, and where the template trims them."""
    guard = ControlTexts(CONTROLS).guard(contents)
    parts = [guard.protect(text) for text in contents]
    rendered = between.join(part.strip() if trims else part for part in parts)
    pieces = guard.pieces(rendered)
    assert controls_read(pieces) == [between] * (len(contents) - 1) * (between in CONTROLS)
    plain = [text.strip() if trims else text for text in contents]
    assert "".join(piece.text for piece in pieces) == between.join(plain)


def test_text_without_controls_stays_in_one_piece() -> None:
    """Then its tokens are those of the whole prompt."""
    guard = ControlTexts(CONTROLS).guard(["a <b> c", "x"])
    rendered = f"<|a|>{guard.protect('a <b> c')}</s>{guard.protect('x')}"
    assert guard.pieces(rendered) == [Piece("<|a|>a <b> c</s>x", parse_special=True)]


def test_a_control_text_is_cut_out() -> None:
    guard = ControlTexts(CONTROLS).guard(["x<|a|>y"])
    assert guard.pieces(f"</s>{guard.protect('x<|a|>y')}</s>") == [
        Piece("</s>x", parse_special=True),
        Piece("<|a|>", parse_special=False),
        Piece("y</s>", parse_special=True),
    ]


def test_the_users_own_private_characters_are_not_mistaken_for_marks() -> None:
    text = "".join(map(chr, range(0xF0000, 0xF0100))) + "0" + chr(0xF0000)
    guard = ControlTexts(CONTROLS).guard([text])
    assert "".join(piece.text for piece in guard.pieces(guard.protect(text + "<|a|>"))) == text + "<|a|>"


def test_a_template_that_cuts_a_control_text_apart_is_refused() -> None:
    guard = ControlTexts(CONTROLS).guard(["<|a|>"])
    with pytest.raises(BadRequest):
        guard.pieces(guard.protect("<|a|>")[:2])
