"""Which machine takes an answer apart: by how its model writes, and by what the request asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rllm.api.answer.parts import PLAIN, Machine, Part, Reasoning
from rllm.api.answer.request import Request
from rllm.api.text.formats.parser import AnswerParser
from rllm.api.text.formats.shapes import Style
from rllm.api.text.tokenizing import ChatPrompt
from rllm.errors import BadRequest

NewMachine = Callable[[], Machine]


def machine_for(request: Request, prompt: ChatPrompt) -> tuple[NewMachine, bool]:
    """And whether the engine has to show control tokens, because some are marks.

    Raises:
        BadRequest: what is asked for cannot go together.
    """
    form = prompt.form
    if (
        request.constraint is not None
    ):  # it holds from the first token on: there are neither thoughts nor calls
        if request.functions:
            raise BadRequest(
                "Unsupported parameter: 'tools': an answer that must match something has no calls yet.",
                param="tools",
                code="unsupported_parameter",
            )
        return lambda: PLAIN, False
    is_text = form.reasoning is None and not form.wrappers and form.tools.style is not Style.HARMONY
    if is_text and not request.functions:
        return lambda: PLAIN, False

    def new() -> Machine:
        parser = AnswerParser(
            form,
            request.functions or None,
            in_thought=prompt.in_thought,
            parallel=request.parallel_calls,
            hidden=prompt.hidden if request.skip_special_tokens else (),
        )
        return parser if request.include_reasoning else _Silent(parser)

    return new, bool(prompt.hidden)


class _Silent:
    """Keeps thoughts to itself."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def is_thinking(self) -> bool:
        return self._machine.is_thinking

    def parts(self, delta: str) -> Sequence[Part]:
        return _spoken(self._machine.parts(delta))

    def rest(self) -> Sequence[Part]:
        return _spoken(self._machine.rest())


def _spoken(parts: Sequence[Part]) -> Sequence[Part]:
    return [part for part in parts if not isinstance(part, Reasoning)]
