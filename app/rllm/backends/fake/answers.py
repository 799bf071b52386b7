"""What the fake model says next: a pure function of the tokens before it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rllm.backends.fake.vocabulary import IM_END, IM_START
from rllm.engine.types import SamplingParams

_DIRECTIVE = re.compile(r"\[\[(say|fail|die|oom|hang|abort)(?: (.*?))?\]\]", re.DOTALL)
_ASSISTANT = chr(IM_START) + "assistant\n"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz "


@dataclass(frozen=True, slots=True)
class Script:
    """The directives of one sequence, and how far its answer has come."""

    say: str | None
    faults: dict[str, int]
    answer: str
    """One character per token."""


def read_script(tokens: Sequence[int]) -> Script | None:
    """The last run of directives; ``None`` where there are none."""
    text = "".join(map(chr, tokens))
    if "[[" not in text:
        return None
    found = list(_DIRECTIVE.finditer(text))
    while len(found) > 1 and found[-2].end() != found[-1].start():
        del found[:-1]  # only those that follow each other without a gap belong together
    if not found:
        return None
    begin = text.find(_ASSISTANT, found[-1].end())
    start = found[-1].end() if begin < 0 else begin + len(_ASSISTANT)
    values = {match[1]: match[2] or "" for match in found}
    faults = {name: int(value or 0) for name, value in values.items() if name != "say"}
    return Script(values.get("say"), faults, text[start:])


def next_token(tokens: Sequence[int], params: SamplingParams, banned: Collection[int] = ()) -> int:
    """Banned tokens, and those with a bias of -100 or less, are never chosen; one of +100 always is."""
    for token, bias in params.logit_bias:
        if bias >= 100 and token not in banned:
            return token
    never = {*banned, *(token for token, bias in params.logit_bias if bias <= -100)}
    script = read_script(tokens)
    if script is not None and script.say is not None and script.say.startswith(script.answer):
        at = len(script.answer)
        said = ord(script.say[at]) if at < len(script.say) else IM_END
        if said not in never:
            return said
    data = "".join(map(chr, tokens)).encode("utf-32-le")
    seed = 0 if params.is_greedy else params.seed + 1
    first = zlib.crc32(data, seed & 0xFFFF_FFFF)
    for i in range(len(_LETTERS)):
        letter = _LETTERS[(first + i) % len(_LETTERS)]
        if letter not in never:
            return letter
    return next(token for token in range(256) if token not in never)


def continuation(
    prompt: Sequence[int], num_tokens: int, params: SamplingParams | None = None, banned: Collection[int] = ()
) -> list[int]:
    """The tokens a correct engine draws after ``prompt``, up to ``num_tokens`` or the end token."""
    params = params or SamplingParams(temperature=0.0)
    tokens = list(prompt)
    while len(tokens) < len(prompt) + num_tokens:
        tokens.append(next_token(tokens, params, banned))
        if tokens[-1] == IM_END:
            break
    return tokens[len(prompt) :]
