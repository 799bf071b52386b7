"""The parts of an answer."""

from __future__ import annotations

import pytest

from rllm.api.answer.parts import PLAIN, CallBegin, Machine, Text


def test_without_a_format_everything_is_text() -> None:
    machine: Machine = PLAIN
    assert machine.parts("<think>") == (Text("<think>"),)
    assert machine.parts("") == machine.rest() == ()


def test_parts_are_values() -> None:
    call = CallBegin(0, "call_1", "add")
    assert call == CallBegin(0, "call_1", "add")
    with pytest.raises(AttributeError):
        call.name = "other"  # type: ignore[misc]
