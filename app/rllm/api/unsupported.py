"""Parameters that OpenAI (or llama-server, or vLLM) knows and this server does not: refused by name.

A parameter at the value that asks for nothing is accepted and dropped, because clients send such values
by habit. Every other value is refused with a sentence: silence about an ignored option is a lie.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from rllm.api.json_body import shorten
from rllm.errors import BadRequest

ANY = object()
"""Every value asks for nothing here."""

_NO_TOOLS = "tool calling is not supported by this server"
_Table = Mapping[str, tuple[tuple[object, ...], str]]

_COMMON: _Table = {
    # Identify the caller to OpenAI; they have no effect on an answer there either.
    "user": ((ANY,), ""),
    "safety_identifier": ((ANY,), ""),
    # Only stored together with a stored completion, and `store` must be false.
    "metadata": ((ANY,), ""),
    "store": ((False,), "nothing is stored by this server"),
    # A hint for routing; prefixes are found without it.
    "prompt_cache_key": ((ANY,), ""),
    "prompt_cache_retention": (("in_memory",), "the prefix cache lives in memory only"),
    "service_tier": (("auto", "default"), "there is one service tier"),
    "suffix": (("",), "fill-in-the-middle is not supported by this server"),
    "response_format": (({"type": "text"},), "only {'type': 'text'} is supported by this server"),
    "guided_json": ((), "structured output is not supported by this server"),
    "guided_regex": ((), "structured output is not supported by this server"),
    "guided_grammar": ((), "structured output is not supported by this server"),
    "structured_outputs": ((), "structured output is not supported by this server"),
    "grammar": (("",), "structured output is not supported by this server"),
    "json_schema": (({},), "structured output is not supported by this server"),
    "use_beam_search": ((False,), "beam search is not supported by this server"),
    "prompt_logprobs": ((0,), "log probabilities of the prompt are not supported by this server"),
    "mirostat": ((0,), "mirostat is not supported by this server"),
}
_CHAT: _Table = {
    **_COMMON,
    "tools": (([],), _NO_TOOLS),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "parallel_tool_calls": ((ANY,), ""),  # without tools there are no calls to make in parallel
    "functions": (([],), _NO_TOOLS),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "audio": ((), "this server produces text only"),
    "modalities": ((["text"],), "this server produces text only"),
    "prediction": ((), "predicted outputs are not supported by this server"),
    "reasoning_effort": (("none",), "the model's reasoning cannot be steered by this server"),
    "verbosity": (("medium",), "the model's verbosity cannot be steered by this server"),
    "web_search_options": ((), "web search is not supported by this server"),
    "moderation": ((), "moderation is not supported by this server"),
    "chat_template": ((), "the model's own chat template is used"),
    "chat_template_kwargs": (({},), "the chat template takes no further arguments on this server"),
    "add_generation_prompt": ((True,), "an assistant's turn is always begun"),
    "continue_final_message": ((False,), "a message cannot be continued on this server"),
    "echo": ((False,), "echo belongs to /v1/completions"),
}
_COMPLETION: _Table = {
    **_COMMON,
    "best_of": ((1,), "choosing the best of several answers is not supported by this server; use n"),
}

_OTHER_NAMES = {
    "n_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_completion_tokens",
    "repeat_penalty": "repetition_penalty",
    "typ_p": "typical_p",
    "stop_sequences": "stop",
    "n_probs": "logprobs",
    "input": "messages",
}


def drop_defaults(data: dict[str, Any], *, chat: bool, known: Collection[str]) -> dict[str, Any]:
    """``data`` without unsupported parameters that ask for nothing.

    Raises:
        BadRequest: names the first parameter that is unsupported or unknown.
    """
    table = _CHAT if chat else _COMPLETION
    kept = {}
    for name, value in data.items():
        if name in known:
            kept[name] = value
        elif name not in table:
            raise _unknown(name, known)
        elif not _asks_nothing(name, value, table, data):
            raise BadRequest(
                f"Unsupported parameter: '{name}': {table[name][1]}.",
                param=name,
                code="unsupported_parameter",
            )
    return kept


def _asks_nothing(name: str, value: object, table: _Table, data: Mapping[str, Any]) -> bool:
    if value is None:
        return True
    if name == "best_of" and value == data.get("n"):  # "of n, return all n"
        return True
    return any(noop is ANY or (type(noop) is type(value) and noop == value) for noop in table[name][0])


def _unknown(name: str, known: Collection[str]) -> BadRequest:
    near = difflib.get_close_matches(name[:64], known, n=1)
    other = _OTHER_NAMES.get(name) or (near[0] if near else None)
    hint = f" Did you mean '{other}'?" if other in known else ""
    shown = shorten(name)
    return BadRequest(f"Unknown parameter: '{shown}'.{hint}", param=shown, code="unknown_parameter")
