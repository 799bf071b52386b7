"""What the tests of vLLM's OpenAI server ask of it."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import openai
import pytest

from tests.compat.llama_server import NO_KEY, WRONG, preflight
from tests.compat.table import LeftOut, Table
from tests.compat.talk import CHAT, MESSAGES, ORIGIN, PROMPT, TEXT, Answer, Server, chat, equal, get, ok, post, refused, status, text, that

TABLE = Table("vLLM")
row, talk = TABLE.row, TABLE.talk
IDS = [40, 41, 42, 43, 44]
NULL = "null asks for nothing, in any field of a request: these are no options"
BIG = {"prompt": IDS}

# --- openai/completion/test_completion.py -------------------------------------------------------------
C = "openai/completion/test_completion.py::"
row(C + "test_single_completion", "one completion of as many tokens as asked for", text(), equal("choices.0.finish_reason", "length"), equal("usage.completion_tokens", 5), lambda a: len(a["choices"]) == 1)
row(C + "test_single_completion", "usage adds up", text(), lambda a: a["usage.total_tokens"] == a["usage.prompt_tokens"] + a["usage.completion_tokens"])
row(C + "test_single_completion", "usage tells what came from the cache", text(cache_prompt=False), that("usage.prompt_tokens_details.cached_tokens", lambda n: n >= 0))
row(C + "test_single_completion", "token ids are a prompt; nobody asked for its log-probabilities", text(**BIG), ok, lambda a: a.choice.get("prompt_logprobs") is None and len(a.choice["text"]) >= 1)
for side, kept in (("right", [40, 41, 42, 43]), ("left", [44, 45, 46, 47])):
    row(
        C + "test_completion_truncation_side_controls_prompt_truncation",
        f"truncation_side {side}",
        text(prompt=list(range(40, 48)), return_token_ids=True, truncate_prompt_tokens=4, truncation_side=side),
        equal("choices.0.prompt_token_ids", kept),
    )
row(C + "test_no_logprobs", "logprobs null: none", text(**BIG, logprobs=None), equal("choices.0.logprobs", None))
row(C + "test_zero_logprobs", "logprobs 0: those of the tokens drawn", text(**BIG, logprobs=0), that("choices.0.logprobs.token_logprobs", lambda x: len(x) == 5), that("choices.0.logprobs.top_logprobs.0", lambda top: len(top) == 1))
row(C + "test_some_logprobs", "logprobs 5: five, and the one drawn", text(**BIG, logprobs=5), that("choices.0.logprobs.top_logprobs.0", lambda top: 5 <= len(top) <= 6))
for stream in (False, True):
    row(C + "test_too_many_completion_logprobs", f"more than 20 are refused (stream {stream})", text(**BIG, logprobs=21, stream=stream), refused(param="logprobs"))
row(C + "test_prompt_logprobs_completion", "prompt_logprobs below 0 is refused", text(prompt=["A robot", "My name"], prompt_logprobs=-1), refused(param="prompt_logprobs"))
for count in (0, 1):
    row(
        C + "test_prompt_logprobs_completion",
        f"prompt_logprobs {count}: for each prompt",
        text(prompt=["A robot may not", "My name is"], prompt_logprobs=count),
        that("choices", lambda cs: all(len(c["prompt_logprobs"]) > 3 and c["prompt_logprobs"][0] is None for c in cs)),
    )
row(C + "test_prompt_logprobs_completion", "not asked for, not there", text(prompt=["A robot", "My name"]), lambda a: all(c.get("prompt_logprobs") is None for c in a["choices"]))


@talk(C + "test_completion_streaming", "a stream is the same text, with one finish reason in its last chunk")
def _(server: Server) -> None:
    answer, whole = server.text(stream=True), server.text()
    reasons = [piece["finish_reason"] for piece in answer.pieces()]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] == "length"
    assert answer.streamed() == whole.choice["text"]


row(C + "test_completion_streaming", "the last chunk has text", text(stream=True, logit_bias={"70": 100}), lambda a: bool(a.pieces()[-1]["text"]))


@talk(C + "test_parallel_no_streaming", "n answers, in order, and not the same ones")
def _(server: Server) -> None:
    choices = server.text(n=3, temperature=1.0, seed=42, logprobs=0, max_tokens=30)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["text"] for choice in choices}) == 3
    assert all(choice["finish_reason"] for choice in choices)


@talk(C + "test_parallel_no_streaming", "some of them end earlier")
def _(server: Server) -> None:
    answer = server.text(n=3, temperature=1.0, seed=1, logprobs=0, max_tokens=200, ignore_eos=False)
    assert len({len(choice["logprobs"]["tokens"]) for choice in answer["choices"]}) > 1


@talk(C + "test_parallel_streaming", "n answers in one stream, told apart by their index")
def _(server: Server) -> None:
    answer = server.text(n=3, temperature=1.0, seed=42, stream=True, max_tokens=30)
    assert len({answer.streamed(index) for index in range(3)}) == 3
    assert all([p["finish_reason"] for p in answer.pieces(i)][-1] for i in range(3))


def options(**given: object) -> dict[str, object]:
    return {"stream": True, "stream_options": given}


O = C + "test_completion_stream_options"
for running in (False, True):
    row(O, f"without include_usage there is none (continuous {running})", text(**options(include_usage=False, continuous_usage_stats=running)), lambda a: not any(a.usages))


def _usage_at_the_end(answer: Answer) -> bool:
    last = answer.chunks[-1]
    total = last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    return last["choices"] == [] and last["usage"]["total_tokens"] == total and not any(answer.usages[:-1])


def _usage_throughout(answer: Answer) -> bool:
    counts = [usage["completion_tokens"] for usage in answer.usages if usage]
    return len(counts) == len(answer.chunks) and counts == sorted(counts) and counts[-1] == 5


row(O, "include_usage: in a last chunk without choices, and in no other", text(**options(include_usage=True, continuous_usage_stats=False)), _usage_at_the_end)
row(O, "continuous_usage_stats: in every chunk, growing", text(**options(include_usage=True, continuous_usage_stats=True)), _usage_throughout)
row(O, "no options, no usage", text(**options()), lambda a: not any(a.usages))
for given in ({"include_usage": None}, {"include_usage": True}, {"continuous_usage_stats": None}, {"continuous_usage_stats": True}):
    row(O, f"options without a stream are refused: {given}", text(stream=False, stream_options=given), refused(param="stream_options"), differs=NULL if None in given.values() else "")
for prompts in ([PROMPT] * 2, [IDS] * 2):
    kind = "texts" if prompts[0] == PROMPT else "token ids"

    @talk(C + "test_batch_completions", f"a batch of {kind}")
    def _(server: Server, prompts: list[object] = prompts) -> None:
        choices = server.text(prompt=prompts)["choices"]
        assert len(choices) == 2
        assert choices[0]["text"] == choices[1]["text"]

    @talk(C + "test_batch_completions", f"a streamed batch of {kind}")
    def _(server: Server, prompts: list[object] = prompts) -> None:
        answer = server.text(prompt=prompts, stream=True)
        assert answer.streamed(0) == answer.streamed(1) != ""
        assert all(len(chunk["choices"]) == 1 for chunk in answer.chunks)


row(C + "test_batch_completions", "beam search", text(prompt=[PROMPT] * 2, n=2, use_beam_search=True), ok, differs="there is no beam search: llama.cpp has none, and beams in a batch of its own would be another engine")
for count in (1, 0):
    for prompt in (PROMPT, IDS):
        row(
            C + "test_echo_logprob_completion",
            f"echo with logprobs {count} of {'text' if prompt == PROMPT else 'token ids'}",
            text(prompt=prompt, echo=True, logprobs=count),
            that("choices.0.text", lambda t, p=prompt: p != PROMPT or t.startswith(PROMPT)),
            that("choices.0.logprobs.token_logprobs", lambda x: len(x) > 5 and x[0] is None and all(v <= 0 for v in x[1:])),
            that("choices.0.logprobs.top_logprobs", lambda x, n=count: x[0] is None and all(max(n, 1) <= len(t) <= n + 1 for t in x[1:])),
            that("choices.0.logprobs.text_offset", lambda x: len(x) > 5 and x == sorted(x)),
            that("choices.0.logprobs.tokens", lambda x: len(x) > 5),
        )

# --- openai/completion: prompts, offsets, tokens ------------------------------------------------------
P = "openai/completion/test_prompt_validation.py::"
row(P + "test_empty_prompt", "no prompt is refused", text(prompt=None), refused(param="prompt"))
row(P + "test_out_of_vocab_token_ids", "a token beyond the vocabulary is refused", text(prompt=[999999]), refused("999999"))
E = "openai/completion/test_completion_error.py::"
row(E + "test_negative_prompt_token_ids_flat", "a negative token is refused", text(prompt=[-1]), refused("-1"))
row(E + "test_negative_prompt_token_ids_nested", "so it is in a batch", text(prompt=[[-1]]), refused("-1"))
row("openai/completion/test_empty_prompt_list.py::test_empty_prompt_list_rejected", "an empty batch is refused", text(prompt=[]), refused(param="prompt"))
row("openai/completion/test_empty_prompt_list.py::test_nonempty_prompt_list_ok", "a batch of one is a batch", text(prompt=["hello"]), ok, lambda a: len(a["choices"]) == 1)
L = "openai/completion/test_completion_logprobs.py::test_completion_logprobs_handles_sampled_token_absent_from_step"
row(
    L,
    "the token drawn is always among the listed",
    text(temperature=2.0, seed=5, logprobs=2, max_tokens=20),
    that("choices.0.logprobs", lambda x: all(min(top.values()) <= own <= max(top.values()) and own in top.values() for own, top in zip(x["token_logprobs"], x["top_logprobs"], strict=True))),
)


@talk("openai/completion/test_completion_text_offset.py::test_stream_text_offset_matches_non_stream_with_stop_holdback", "offsets do not depend on streaming, although a stop string holds text back")
def _(server: Server) -> None:
    fields = {"stop": ["\n\n"], "logprobs": 0, "max_tokens": 12, "logit_bias": {str(n): 20 for n in range(36, 90)}}
    whole = server.text(**fields).choice
    pieces = server.text(stream=True, **fields).pieces()
    streamed = [offset for piece in pieces if piece["logprobs"] for offset in piece["logprobs"]["text_offset"]]
    assert streamed == whole["logprobs"]["text_offset"]
    tokens = whole["logprobs"]["tokens"]
    assert streamed == [sum(map(len, tokens[:index])) for index in range(len(tokens))]


row(
    "openai/completion/test_token_in_token_out.py::test_token_in_token_out_and_logprobs",
    "token ids in, token ids out",
    text(prompt=IDS, echo=True, return_token_ids=True),
    equal("choices.0.prompt_token_ids", IDS),
    that("choices.0.token_ids", lambda t: len(t) == 5),
)

# --- openai/chat_completion/test_chat.py --------------------------------------------------------------
H = "openai/chat_completion/test_chat.py::"
SHORT = {"max_tokens": None, "max_completion_tokens": 5}
row(H + "test_no_logprobs_chat", "logprobs false: none", chat(**SHORT, logprobs=False), equal("choices.0.logprobs", None))
row(H + "test_zero_logprobs_chat", "top_logprobs 0: no rivals", chat(**SHORT, logprobs=True, top_logprobs=0), that("choices.0.logprobs.content.0.top_logprobs", lambda x: x == []))
row(H + "test_some_logprobs_chat", "top_logprobs 5: five", chat(**SHORT, logprobs=True, top_logprobs=5), that("choices.0.logprobs.content.0.top_logprobs", lambda x: len(x) == 5))
for count, stream in ((21, True), (30, False)):
    row(H + "test_too_many_chat_logprobs", f"top_logprobs {count} is refused", chat(logprobs=True, top_logprobs=count, stream=stream), refused(param="top_logprobs"))
for count in (0, 1):
    row(H + "test_prompt_logprobs_chat", f"prompt_logprobs {count} of a chat", chat(prompt_logprobs=count), that("prompt_logprobs", lambda x: len(x) > 5))
row(H + "test_prompt_logprobs_chat", "prompt_logprobs below 0 is refused", chat(prompt_logprobs=-1), refused(param="prompt_logprobs"))
row(H + "test_prompt_logprobs_chat", "not asked for, not there", chat(), lambda a: a.json.get("prompt_logprobs") is None)


@talk(H + "test_more_than_one_prompt_logprobs_chat", "prompt_logprobs N: the N likeliest, and the one that came")
def _(server: Server) -> None:
    for count in (1, 2):
        assert count <= len(server.chat(prompt_logprobs=count)["prompt_logprobs.3"]) <= count + 1


@talk(H + "test_single_chat_session", "an answer becomes part of the conversation")
def _(server: Server) -> None:
    first = server.chat(**SHORT, logprobs=True, top_logprobs=5)
    message = {"role": "assistant", "content": first["choices.0.message.content"]}
    ok(server.chat(messages=[*MESSAGES, message, {"role": "user", "content": "in json, please"}]))


@talk(H + "test_chat_streaming", "a stream is the same text, with one finish reason in its last chunk")
def _(server: Server) -> None:
    answer, whole = server.chat(stream=True, max_tokens=10), server.chat(max_tokens=10)
    reasons = [piece["finish_reason"] for piece in answer.pieces()]
    assert [reason for reason in reasons if reason] == [reasons[-1]] == [whole["choices.0.finish_reason"]]
    assert answer.streamed() == whole["choices.0.message.content"]


row(H + "test_chat_streaming", "the last chunk has text", chat(stream=True, logit_bias={"70": 100}), lambda a: bool(a.pieces()[-1]["delta"].get("content")))
CO = H + "test_chat_completion_stream_options"
row(CO, "without include_usage there is none", chat(**options(include_usage=False)), lambda a: not any(a.usages))
row(CO, "include_usage: in a last chunk without choices, and in no other", chat(**options(include_usage=True, continuous_usage_stats=False)), _usage_at_the_end)
row(CO, "continuous_usage_stats: in every chunk, growing", chat(**options(include_usage=True, continuous_usage_stats=True)), _usage_throughout)
for given in ({"include_usage": None}, {"include_usage": True}):
    row(CO, f"options without a stream are refused: {given}", chat(stream=False, stream_options=given), refused(param="stream_options"), differs=NULL if None in given.values() else "")
row(H + "test_chat_completion_stream_options", "min_tokens is heeded", chat(max_tokens=10, min_tokens=10, ignore_eos=False), equal("usage.completion_tokens", 10))
row(H + "test_response_format_text", "response_format text asks for nothing", chat(response_format={"type": "text"}), ok)
row(
    H + "test_extra_fields_allowed",
    "a field of a message that nobody knows is passed over",
    chat(messages=[{**MESSAGES[0], "extra_field": "0"}]),
    ok,
    differs="a field that no server knows is refused by name: an option that is passed over in silence is a wrong answer",
)
row(H + "test_complex_message_content", "a content in parts is read", chat(messages=[{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}]), ok)


@talk(H + "test_custom_role", "a role of one's own is the template's affair")
def _(server: Server) -> None:
    contents: list[object] = ["what is 1+1?", [{"type": "text", "text": "what is 1+1?"}]]
    answers = [server.chat(messages=[{"role": "my-custom-role", "content": content}], seed=0) for content in contents]
    assert answers[0]["choices.0.message"] == answers[1]["choices.0.message"]


for seed in (-(2**63) - 1, 2**63):
    row(H + "test_long_seed", f"seed {seed} is refused", chat(seed=seed), refused(param="seed"))
row(H + "test_chat_completion_n_parameter_non_streaming", "n=3: three, in order", chat(n=3, temperature=0.7), lambda a: [c["index"] for c in a["choices"]] == [0, 1, 2] and len({c["message"]["content"] for c in a["choices"]}) > 1)
row(H + "test_chat_completion_n_parameter_streaming", "n=2 streamed", chat(n=2, temperature=0.7, stream=True, max_tokens=15), lambda a: a.streamed(0) != "" != a.streamed(1))
row(H + "test_chat_completion_n_with_seed", "n with a seed", chat(n=2, seed=42, temperature=0.8), lambda a: all(c["message"]["content"] for c in a["choices"]))
row(H + "test_chat_completion_n_equals_1", "n=1 is one", chat(n=1), lambda a: len(a["choices"]) == 1)
for count in (2, 5, 10):
    row(H + "test_chat_completion_request_n_parameter_various_values", f"n={count}", chat(n=count, max_tokens=2), lambda a, count=count: len(a["choices"]) == count)

A3 = "openai/chat_completion/test_cache_accounting.py::"
AGAIN = [{"role": "user", "content": "The same question twice, long enough that it is worth keeping, is computed once. " * 2}]


@talk(A3 + "test_cache_accounting_non_streaming", "the second time, usage tells what came from the cache")
def _(server: Server) -> None:
    server.chat(messages=AGAIN)
    assert server.chat(messages=AGAIN)["usage.prompt_tokens_details.cached_tokens"] > 0


@talk(A3 + "test_cache_accounting_streaming", "so it does in a stream")
def _(server: Server) -> None:
    server.chat(messages=AGAIN)
    answer = server.chat(messages=AGAIN, **options(include_usage=True))
    assert answer.chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


@talk("openai/completion/test_serving_completion.py::test_prompt_tokens_details_aggregates_across_prompts", "a batch's usage is that of its prompts together")
def _(server: Server) -> None:
    one, batch = server.text(), server.text(prompt=[PROMPT] * 3)
    assert batch["usage.prompt_tokens"] == 3 * one["usage.prompt_tokens"]
    assert batch["usage.prompt_tokens_details.cached_tokens"] <= batch["usage.prompt_tokens"]


Y3 = "openai/chat_completion/test_logprob_token_ids_validation.py::"
for path, ask in ((TEXT, text), (CHAT, chat)):
    row(Y3 + "test_rejects_empty_token_ids", f"logprob_token_ids of nothing is refused at {path}", ask(logprobs=1 if path == TEXT else True, logprob_token_ids=[]), refused(param="logprob_token_ids"))
    row(Y3 + "test_rejects_token_ids_without_logprobs", f"logprob_token_ids without logprobs is refused at {path}", ask(logprob_token_ids=[100]), refused(param="logprob_token_ids"))
row(
    "openai/chat_completion/test_logprob_token_ids.py",
    "the log-probabilities of given tokens",
    chat(logprobs=True, logprob_token_ids=[70, 71]),
    ok,
    differs="logits are read for the likeliest tokens only; what asks for certain others is refused by name",
)
row("openai/chat_completion/test_tool_choice_null.py::test_null_tool_choice_without_tools_matches_an_absent_one", "tool_choice null is none given", chat(tool_choice=None), ok)
row("openai/chat_completion/test_reasoning_effort.py::test_existing_chat_template_kwargs_preserved", "arguments for the template are taken", chat(chat_template_kwargs={"custom_key": "value"}), ok)

# --- openai/chat_completion and openai/basic: the smaller ones ----------------------------------------
U = "openai/chat_completion/test_usage_policy.py::TestUsagePolicyDefault::"
row(U + "test_non_streaming", "usage is always there", chat(), that("usage.prompt_tokens", lambda n: n > 0))
row(U + "test_streaming_no_usage", "in a stream on request", chat(stream=True), lambda a: not any(a.usages))
row(U + "test_streaming_with_usage_option", "then it is", chat(**options(include_usage=True)), _usage_at_the_end)
R = "openai/basic/test_chat_echo.py::"
SAYING = "Here is a common saying about apple. An apple a day, keeps"
SAID = {"messages": [*MESSAGES, {"role": "assistant", "content": SAYING}], "continue_final_message": True, "add_generation_prompt": False}
row(R + "test_chat_session_with_echo_and_continue_final_message", "the last message is continued", chat(**SAID), that("choices.0.message.content", lambda c: SAYING not in c))
row(R + "test_chat_session_with_echo_and_continue_final_message", "and repeated with echo", chat(**SAID, echo=True), that("choices.0.message.content", lambda c: SAYING in c))
B = "test_chat_logit_bias_validation.py::"
row("openai/basic/" + B + "test_chat_logit_bias_valid", "a bias of the last token is heeded", chat(logit_bias={"264": 1.0}), ok)
row(
    "openai/basic/" + B + "test_chat_logit_bias_invalid",
    "one beyond the vocabulary is refused, with both numbers",
    chat(logit_bias={"266": 1.0}),
    refused("266"),
    lambda a: "265" in a.json["error"]["message"] or "264" in a.json["error"]["message"],
)
T = "openai/chat_completion/test_chat_stop_token_ids_validation.py::"
row(T + "test_chat_stop_token_ids_valid", "a token may end an answer", chat(stop_token_ids=[264]), ok)
row(T + "test_chat_stop_token_ids_out_of_vocab", "one beyond the vocabulary is refused, with both numbers", chat(stop_token_ids=[266]), refused("266"), lambda a: "265" in a.json["error"]["message"] or "264" in a.json["error"]["message"])
row(T + "test_chat_stop_token_ids_negative", "a negative one is refused", chat(stop_token_ids=[-1]), refused(param="stop_token_ids[0]"))
J = "openai/chat_completion/test_non_object_body_validation.py::"
for body in (b"this is not valid json{{{", b'["not", "an", "object"]', b"42", b"null"):
    row(J + "test_chat_completion_request_rejects_non_object_body", f"the body {body.decode()} is refused", post(CHAT, body), refused())
row(J + "test_chat_completion_request_cache_salt_still_validated_on_dict", "an empty cache_salt is refused", chat(cache_salt=""), refused(param="cache_salt"))
K = "openai/basic/test_return_token_ids.py::"
ALL_IDS = {"return_token_ids": True, "logprobs": 1, "temperature": 0, "max_tokens": 10}


@talk(K + "test_basic_completion_with_emoji", "a completion's token ids, of the prompt and of the answer")
def _(server: Server) -> None:
    prompt = "Complete this with emojis: I love coding 🚀"
    tokens = server.post("/tokenize", {"prompt": prompt, "add_special_tokens": False})["tokens"]
    choice = server.text(prompt=prompt, **ALL_IDS).choice
    assert choice["prompt_token_ids"][-len(tokens) :] == tokens
    assert server.post("/detokenize", {"tokens": choice["token_ids"]})["prompt"].startswith(choice["text"])


row(K + "test_basic_completion_with_emoji", "not asked for, not there", text(return_token_ids=False), lambda a: a.choice.get("token_ids") is None and a.json.get("prompt_token_ids") is None)


@talk(K + "test_comparison_with_prompt_logprobs_and_logprobs", "token ids, tokens as ids and echo agree")
def _(server: Server) -> None:
    fields = {**ALL_IDS, "echo": True, "return_tokens_as_token_ids": True, "prompt_logprobs": 1}
    choice = server.text(prompt="Hello, world! How are you today?", **fields).choice
    told = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
    assert told == choice["prompt_token_ids"] + choice["token_ids"]
    assert choice["prompt_logprobs"] is not None


@talk(K + "test_comparison_with_prompt_logprobs_and_logprobs", "they agree in a stream, the prompt's in its first chunk")
def _(server: Server) -> None:
    pieces = server.text(stream=True, **ALL_IDS, return_tokens_as_token_ids=True).pieces()
    assert pieces[0]["prompt_token_ids"]
    assert not any(piece.get("prompt_token_ids") for piece in pieces[1:])
    told = [token for piece in pieces if piece["logprobs"] for token in piece["logprobs"]["tokens"]]
    ids = [token for piece in pieces for token in piece.get("token_ids") or ()]
    assert told == [f"token_id:{token}" for token in ids] != []


@talk(K + "test_chat_completion_with_emoji_and_token_ids", "a chat's token ids")
def _(server: Server) -> None:
    messages = [{"role": "user", "content": "Repeat after me: I love cats 🐱"}]
    answer = server.chat(messages=messages, return_token_ids=True, logprobs=True)
    assert answer["choices.0.token_ids"]
    prompt = server.post("/detokenize", {"tokens": answer["prompt_token_ids"]})["prompt"]
    assert "I love cats 🐱" in prompt


@talk(K + "test_chat_completion_with_emoji_and_token_ids", "a streamed chat's, the prompt's in its first chunk")
def _(server: Server) -> None:
    answer = server.chat(stream=True, return_token_ids=True)
    first, *others = answer.chunks
    assert first["prompt_token_ids"]
    assert not any("prompt_token_ids" in chunk for chunk in others)
    assert sum(len(piece.get("token_ids") or ()) for piece in answer.pieces()) == 5


I = "openai/test_return_tokens_as_ids.py::"
row(
    I + "test_completion_return_tokens_as_token_ids_completion",
    "tokens are named by their ids",
    text(prompt="Say '🎉'", echo=True, logprobs=1, return_tokens_as_token_ids=True),
    that("choices.0.logprobs", lambda x: all(t.startswith("token_id:") for t in x["tokens"]) and all(tok in top for tok, top in zip(x["tokens"][1:], x["top_logprobs"][1:], strict=True))),
)
row(I + "test_chat_return_tokens_as_token_ids_completion", "in chats, too", chat(logprobs=True, return_tokens_as_token_ids=True), that("choices.0.logprobs.content", lambda x: all(t["token"].startswith("token_id:") for t in x)))
G = "openai/test_chunked_prompt.py::"
LONG = {"prompt": "What is it? " * 12, "logprobs": 5, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
row(
    G + "test_completion_stream_options_and_logprobs_with_long_prompts",
    "running usage of a long prompt adds up",
    text(**LONG),
    lambda a: all(u and u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in a.usages) and a.usages[-1]["completion_tokens"] == 5,
)
row(
    G + "test_chat_completion_stream_options_and_logprobs_with_long_prompts",
    "at most one chunk of a chat has no token",
    chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}, logprobs=True, top_logprobs=5, logit_bias={"70": 100}),
    lambda a: sum(1 for p in a.pieces() if not p["delta"].get("content")) <= 1,
)

# --- openai/basic/test_basic.py, openai/test_models.py ------------------------------------------------
A = "openai/basic/test_basic.py::"
row(A + "test_show_version", "the version is told", get("/version"), that("version", bool))
row(A + "test_check_health", "health is a 200", get("/health"), ok)
row(A + "test_request_wrong_content_type", "a form is refused", lambda s: s.request("POST", CHAT, b"a=b", {"content-type": "application/x-www-form-urlencoded"}), status(415, 400))


@talk(A + "test_request_cancellation", "clients that give up leave room for those who come after")
def _(server: Server) -> None:
    def give_up(_: int) -> None:
        with contextlib.suppress(TimeoutError):
            server.request("POST", CHAT, {"messages": MESSAGES, "max_tokens": 200, "min_tokens": 200}, timeout_s=0.1)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(give_up, range(80)))
    ok(server.request("POST", CHAT, {"messages": MESSAGES, "max_tokens": 5}, timeout_s=10))


@talk(A + "test_server_load", "the load is the requests at work")
def _(server: Server) -> None:
    def load() -> int:
        return int(server.get("/load")["server_load"])

    def until(wanted: int) -> None:
        for _ in range(200):
            if load() == wanted:
                return
            threading.Event().wait(0.02)
        pytest.fail(f"the load is {load()}, not {wanted}")

    until(0)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(server.text, max_tokens=220)
        until(1)
        ok(pending.result())
    until(0)


@talk("openai/test_models.py::test_check_models", "OpenAI's client lists the models")
def _(server: Server) -> None:
    assert next(iter(server.openai().models.list())).id == "tiny"


# --- openai/test_tokenization.py ----------------------------------------------------------------------
Q = "openai/test_tokenization.py::"
for special in (False, True):
    row(
        Q + "test_tokenize_completions",
        f"a prompt's tokens are counted (add_special_tokens {special})",
        post("/tokenize", {"prompt": "This is a test.", "add_special_tokens": special}),
        lambda a: a["count"] == len(a["tokens"]) > 3,
        equal("max_model_len", 256),
    )
TALK = [{"role": "user", "content": "Hi there!"}, {"role": "assistant", "content": "Sure,"}]


@talk(Q + "test_tokenize_chat", "messages are tokenized as the template renders them")
def _(server: Server) -> None:
    for generation, goes_on in ((False, False), (True, False), (False, True)):
        fields = {"messages": TALK, "add_generation_prompt": generation, "continue_final_message": goes_on}
        rendered = server.post("/apply-template", fields)["prompt"]
        tokens = server.post("/tokenize", fields)["tokens"]
        assert tokens == server.post("/tokenize", {"prompt": rendered, "add_special_tokens": False})["tokens"]
        assert rendered.endswith("assistant\n") is generation
        assert rendered.endswith("Sure,") is goes_on


row(
    Q + "test_tokenize_with_return_token_strs",
    "the tokens' texts on request",
    post("/tokenize", {"prompt": "token_strs", "return_token_strs": True}),
    lambda a: len(a["token_strs"]) == a["count"] and "".join(a["token_strs"]) == "token_strs",
)
row(Q + "test_tokenize_completions", "and not otherwise", post("/tokenize", {"prompt": "x"}), lambda a: a.json.get("token_strs") is None)


@talk(Q + "test_detokenize", "tokens become the prompt again")
def _(server: Server) -> None:
    prompt = "This is a test prompt."
    tokens = server.post("/tokenize", {"prompt": prompt, "add_special_tokens": False})["tokens"]
    assert server.post("/detokenize", {"tokens": tokens})["prompt"] == prompt


row(Q + "test_tokenizer_info_basic", "the tokenizer has a name", get("/tokenizer_info"), that("tokenizer_class", lambda name: isinstance(name, str) and name))
row(
    Q + "test_tokenizer_info_schema",
    "what it tells has the types of Hugging Face",
    get("/tokenizer_info"),
    lambda a: isinstance(a.json.get("model_max_length", 1), int) and isinstance(a.json.get("add_bos_token", True), bool) and isinstance(a.json.get("eos_token", ""), str),
)
row(
    Q + "test_tokenizer_info_added_tokens_structure",
    "special tokens say that they are",
    get("/tokenizer_info"),
    lambda a: all(isinstance(t["content"], str) and isinstance(t["special"], bool) for t in a.json.get("added_tokens_decoder", {}).values()),
)
row(Q + "test_tokenizer_info_chat_template", "the template is there", get("/tokenizer_info"), that("chat_template", lambda x: x.strip() != ""))

# --- serve: middleware, render, errors, metrics -------------------------------------------------------
M = "serve/middleware/"
row(M + "test_x_request_id.py::test_response_has_one_request_id", "a caller's id comes back", get("/health", **{"x-request-id": "caller"}), lambda a: a.headers["x-request-id"] == "caller")
row(M + "test_x_request_id.py::test_response_has_one_request_id", "else there is one", get("/health"), lambda a: len(a.headers["x-request-id"]) > 8 and UUID(a.headers["x-request-id"].removeprefix("req-")).version == 4)
W = M + "test_authentication_middleware.py::"
for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("POST", TEXT), ("POST", "/tokenize"), ("GET", "/metrics"), ("GET", "/version"), ("GET", "/slots"), ("GET", "/props")):
    for headers in (NO_KEY, WRONG):
        row(
            W + "test_auto_discovered_protected_routes_require_auth",
            f"{method} {path} needs a key, not {headers['authorization'] or 'none'}",
            lambda s, m=method, p=path, h=headers: s.request(m, p, {} if m == "POST" else None, h),
            status(401),
            on="guarded",
        )
row(W + "test_auto_discovered_unprotected_routes_no_auth", "health needs none", get("/health", **NO_KEY), ok, on="guarded")
row(W + "test_unguarded_path_with_trailing_slash_needs_no_token", "nor with a slash at its end", get("/health/", **NO_KEY), ok, on="guarded")
row(W + "test_trailing_slash_does_not_unguard_a_protected_path", "a slash opens nothing", get("/v1/models/", **NO_KEY), status(401), on="guarded")
row(W + "test_trailing_slash_does_not_unguard_a_protected_path", "and closes nothing", get("/v1/models/"), ok, on="guarded")
row(W + "test_bare_options_on_a_guarded_mount_needs_a_token", "OPTIONS alone is no preflight", lambda s: s.request("OPTIONS", "/metrics", None, NO_KEY), status(401, 405), lambda a: "rllm_" not in a.text, on="guarded")
row(
    W + "test_options_without_origin_is_not_a_preflight",
    "nor is it without an origin",
    lambda s: s.request("OPTIONS", "/metrics", None, {**NO_KEY, "access-control-request-method": "GET"}),
    status(401, 405),
    lambda a: "rllm_" not in a.text,
    on="guarded",
)
row(W + "test_cors_preflight_needs_no_token_and_returns_no_data", "a preflight needs no key and tells nothing", preflight("/metrics"), ok, lambda a: a.headers["access-control-allow-origin"] == ORIGIN and "rllm_" not in a.text, on="guarded")
V = M + "test_cors_middleware.py::"
row(V + "test_default_origins_prevent_cross_origin_reads_and_json_requests", "no origin may read by default", get("/v1/models", origin="http://attacker.example"), ok, lambda a: "access-control-allow-origin" not in a.headers)
row(V + "test_default_origins_prevent_cross_origin_reads_and_json_requests", "nor ask first", preflight(CHAT, origin="http://attacker.example"), status(400, 403, 405), lambda a: "access-control-allow-origin" not in a.headers)
row(V + "test_explicit_origin_allows_browser_requests", "one that is named may", get("/v1/models", origin=ORIGIN), ok, lambda a: a.headers["access-control-allow-origin"] == ORIGIN, on="guarded")
N = "serve/render/test_render.py::"
row(N + "test_completion_render_basic", "a completion's prompt can be had as tokens", post(TEXT + "/render", {"prompt": PROMPT}), that("0.token_ids", lambda t: len(t) > 3))
row(N + "test_completion_render_multiple_prompts", "each of a batch", post(TEXT + "/render", {"prompt": ["Hello", "Bye"]}), lambda a: [len(p["token_ids"]) > 0 for p in a.json] == [True, True])
row(N + "test_chat_completion_render_basic", "a chat's prompt as tokens", post(CHAT + "/render", {"messages": MESSAGES}), that("token_ids", lambda t: all(type(x) is int for x in t)))
row(N + "test_chat_completion_render_multi_turn", "with its history", post(CHAT + "/render", {"messages": [*TALK, *MESSAGES]}), that("token_ids", lambda t: len(t) > 20))
row(
    N + "test_chat_completion_render_with_stream_true",
    "a stream is not one there",
    post(CHAT + "/render", {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}),
    ok,
    lambda a: a.headers["content-type"].startswith("application/json"),
)
for path, body in ((TEXT, {"prompt": "x"}), (CHAT, {"messages": MESSAGES})):
    row(N + "test_completion_render_error_invalid_model", f"an unknown model is a 404 at {path}/render", post(path + "/render", {**body, "model": "invalid-model-name"}), refused(code=404))
row(N + "test_chat_completion_render_with_sampling_params", "what was asked for is told beside the tokens", post(CHAT + "/render", {"messages": MESSAGES, "temperature": 0.123}), equal("sampling_params.temperature", 0.123))
F = "serve/exception_handler/test_validation_exception_handler.py::"
row(F + "TestValidationErrorParamFallback", "an error names the field that is missing", post(CHAT, {"max_tokens": 1}), refused(param="messages"))
row(F + "TestValidationErrorParamFallback", "an error names the field of a wrong type", chat(messages=7), refused(param="messages"))
row(F + "TestCleanLocForParam", "and where in it", chat(messages=[*MESSAGES, {"role": "user", "content": 7}]), lambda a: a.json["error"]["param"].startswith("messages[1].content"))
row(F + "TestCleanLocForParam", "without words of our own insides", text(stop={"a": 1}), refused(param="stop"))
row(F + "TestValidationErrorDoesNotLeakServerPaths", "an error tells nothing of the machine", chat(messages="not-a-list"), refused(), lambda a: "/" not in a.json["error"]["message"] and ".py" not in a.text)
Y = "serve/instrumentator/test_metrics.py::"
for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prompt_tokens", "request_generation_tokens"):
    row(Y + "test_metrics_exist", f"vllm:{name} is measured (with --metrics-compat vllm)", get("/metrics"), lambda a, n=name: f"vllm:{n}_count" in a.text)
for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total", "generation_tokens_total", "request_success_total", "num_preemptions_total"):
    row(Y + "test_metrics_exist", f"vllm:{name} is counted (with --metrics-compat vllm)", get("/metrics"), lambda a, n=name: f"vllm:{n}" in a.text)


@talk(Y + "test_metrics_counts", "tokens of prompts and answers are counted")
def _(server: Server) -> None:
    def counted(name: str) -> float:
        lines = server.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}_total"))

    before = counted("generation_tokens")
    for _ in range(3):
        server.text(max_tokens=10)
    assert counted("generation_tokens") - before == 30


@talk(H + "test_too_many_chat_logprobs", "OpenAI's client raises BadRequestError, and the server goes on")
def _(server: Server) -> None:
    client = server.openai()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=MESSAGES, logprobs=True, top_logprobs=21)  # type: ignore[arg-type]
    assert client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=2).choices  # type: ignore[arg-type]


@talk("openai/completion/test_stream_frame_template.py", "each frame of a stream is one line of JSON")
def _(server: Server) -> None:
    frames = server.text(stream=True).frames
    assert all("\n" not in frame and json.loads(frame) for frame in frames[:-1])


LEFT_OUT = (
    LeftOut("vLLM", "openai/tool_parsers, openai/tool_use, chat_completion/*tool*", "tools, asked by tests/http/test_tools.py"),
    LeftOut("vLLM", "test_chat.py, test_completion.py: structured outputs, response_format, guided decoding", "structured output, asked by tests/model/test_structured.py"),
    LeftOut("vLLM", "openai/responses, openai/speech_to_text, openai/realtime, openai/embedding_tests, anthropic, pooling, serve/disagg", "other doors"),
    LeftOut("vLLM", "openai/reasoning_parsers, test_include_reasoning, test_thinking_token_budget, test_serving_chat (gpt-oss), parser", "reasoning, harmony"),
    LeftOut("vLLM", "test_vision*, test_audio*, test_video, *embeds*, files", "images, sound, embeddings as prompts"),
    LeftOut("vLLM", "test_lora*, serve/lora, test_default_mm_loras", "adapters"),
    LeftOut("vLLM", "test_chat.py::test_invocations, serve/test_cancel.py", "other doors: SageMaker's, one that cancels by id"),
    LeftOut("vLLM", "test_enable_force_include_usage, test_chat_echo (logprobs of the whole vocabulary), test_root_path", "options of its start"),
    LeftOut("vLLM", "test_extra_content_fields, test_reasoning_effort, test_tool_choice_null (with tools)", "certain models, reasoning, tools"),
    LeftOut("vLLM", "serve/dev, serve/sleep, serve/elastic_ep, serve/steering, serve/snapshot, serve/sagemaker", "operating vLLM itself"),
    LeftOut("vLLM", "test_cli_args, test_chat_template (files and options), serve/config, test_uds", "options of its start (tests/cli has ours)"),
    LeftOut("vLLM", "completion/test_shutdown.py", "signals and processes (tests/cli/test_serve.py, tests/chaos have ours)"),
    LeftOut("vLLM", "*_error_*stream, test_error_sanitization", "an engine that fails (tests/http/test_chat.py, tests/serving have ours)"),
    LeftOut("vLLM", "correctness/", "accuracy on tasks over the net (rllm-bench quality)"),
)
