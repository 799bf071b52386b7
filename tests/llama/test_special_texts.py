"""A long text may be cut only where its tokens stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllm.backends.llama import vocabulary
from rllm.backends.llama.special_texts import SpecialTexts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("aaaa<s>bbbb", ["aaaa<s>", "bbbb"]),
        ("<s><s><s><s>", ["<s><s>", "<s><s>"]),
        ("aaaaaaaa", ["aaaaaaaa"]),  # no safe place
        ("aaaa<r>  bbbb<s>c", ["aaaa<r>  bbbb<s>", "c"]),  # <r> swallows the white space behind it
        ("aaa\n\n\nbbb", ["aaa\n\n\nbbb"]),  # another "\n\n" lies across
        ("aa<s>", ["aa<s>"]),
    ],
)
def test_cuts_are_behind_special_texts(text: str, parts: list[str]) -> None:
    specials = SpecialTexts({"<s>": False, "<r>": True, "\n\n": False})
    assert list(specials.cut(text, 4)) == parts


def test_a_place_that_another_special_text_covers_is_not_safe() -> None:
    """llama.cpp takes the longest first: here it might be the one across the cut."""
    specials = SpecialTexts({"ab": False, "bcd": False, "\n": False, "\n\n": False})
    assert list(specials.cut("xxxabcdxabx", 4)) == ["xxxabcdxab", "x"]
    assert list(specials.cut("\n" * 9, 4)) == ["\n" * 9]
    assert list(specials.cut("", 4)) == []


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(
            ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "the ", " ", "\n", "hi", "<|im_", "end|>", "猫"]
        )
    ).map("".join),
    add_special=st.booleans(),
    parse_special=st.booleans(),
)
def test_a_cut_text_has_the_tokens_of_the_whole(
    tiny_vocabulary: vocabulary.LlamaVocabulary, text: str, add_special: bool, parse_special: bool
) -> None:
    def tokens(long: int) -> list[int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vocabulary, "LONG", long)
            return tiny_vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    assert tokens(8) == tokens(10**9)


@pytest.fixture(scope="module")
def tiny_vocabulary(tiny_model: Path) -> vocabulary.LlamaVocabulary:
    return vocabulary.load_vocabulary(tiny_model, hide_gpus=False)


@pytest.mark.timeout(60)
def test_many_control_tokens_are_not_a_bomb(tiny_vocabulary: vocabulary.LlamaVocabulary) -> None:
    """Uncut, the time grows with the square: 7 s for 40,000 of them."""
    text = "<|im_end|>" * 300_000
    assert len(tiny_vocabulary.tokenize(text, add_special=False, parse_special=True)) == 300_000
