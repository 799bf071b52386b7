"""What a body holds is counted outside of its texts, whatever they contain and wherever they end."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllm.api.http.json_body import parse_object
from rllm.errors import BadRequest, BodyTooLarge


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(alphabet='"\\[{:,a', max_size=6), max_size=6),
    filler=st.sampled_from(["[", "{", ":", ","]),
)
def test_marks_in_texts_do_not_count(texts: list[str], filler: str) -> None:
    """However many: the body is an ordinary one."""
    body = orjson.dumps({"texts": [*texts, filler * 1_100_000]})
    assert parse_object(body)["texts"][:-1] == texts


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"a":["\\"",' + b"[]," * 60_000 + b"1]}", "arrays and objects"),
        (b'{"a":{"x[":1' + b',"y":1' * 110_000 + b"}}", "members"),
        (b'{"a":["]",' + b"1," * 1_000_001 + b"1]}", "values"),
        (b'{"a":"' + b"x" * 5000 + b'","b":[' + b"{}," * 60_000, "arrays and objects"),
    ],
)
def test_too_many_are_refused_before_anything_is_built(body: bytes, name: str) -> None:
    with pytest.raises(BodyTooLarge, match=name):
        parse_object(body)


def test_a_text_that_does_not_end_is_no_json() -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        parse_object(b'{"a":"' + b'\\"[' * 600_000)
