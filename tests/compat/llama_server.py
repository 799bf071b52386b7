"""What llama-server's tests ask of it. Its own door /completion is another matter; the words it shares are here."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tests.compat.table import LeftOut, Table
from tests.compat.talk import CHAT, MESSAGES, NO_END, ORIGIN, PROMPT, TEXT, Answer, Server, chat, equal, get, ok, post, refused, status, text, that

TABLE = Table("llama.cpp")
row, talk = TABLE.row, TABLE.talk

FINISH_WITH_TEXT = "the last piece of text and the finish reason share a chunk, as in vLLM; llama-server and Ollama end with a chunk that has no content. Clients that follow OpenAI's types read both"

# --- test_basic.py ------------------------------------------------------------------------------------
B = "test_basic.py::"
row(B + "test_server_start_simple", "a server that is ready is healthy", get("/health"), equal("status", "ok"))
row(B + "test_server_props", "the properties name the file", get("/props"), that("model_path", lambda p: ".gguf" in p))
row(B + "test_server_props", "the properties count the slots", get("/props"), equal("total_slots", 4))
row(B + "test_server_props", "the properties say how long a slot is", get("/props"), equal("default_generation_settings.n_ctx", 256))
row(B + "test_server_models", "models are listed without /v1, too", get("/models"), equal("data.0.id", "tiny"))
row(B + "test_server_slots", "there is an entry for each slot", get("/slots"), lambda a: len(a.json) == 4)
row(B + "test_server_slots", "a slot says how long it is", get("/slots"), equal("0.n_ctx", 256))
row(B + "test_server_slots", "a slot tells nothing of a request", get("/slots"), lambda a: "params" not in a["0"])
row(B + "test_no_webui", "there is a page for people", get("/ui"), ok, lambda a: "<!doctype html>" in a.text.lower())
row(B + "test_no_webui", "/ leads to it", get("/"), status(307), lambda a: a.headers["location"] == "ui")
row(B + "test_server_model_aliases_and_tags", "a model's other names are listed with it", get("/models"), equal("data.0.aliases", ["other", "another"]))

# --- test_completion.py -------------------------------------------------------------------------------
C = "test_completion.py::"
row(C + "test_completion", "n_predict bounds an answer", text(max_tokens=None, n_predict=8), equal("usage.completion_tokens", 8))
row(C + "test_completion", "timings count the prompt", text(cache_prompt=False), that("timings.prompt_n", lambda n: n > 3))
row(C + "test_completion", "timings count the answer", text(max_tokens=8), equal("timings.predicted_n", 8))
row(C + "test_completion", "the tokens are returned where they are wanted", text(return_token_ids=True), that("choices.0.token_ids", lambda ids: len(ids) == 5 and all(type(one) is int for one in ids)))
row(C + "test_completion", "and are not where they are not", text(), lambda a: not a.choice.get("token_ids"))
row(C + "test_completion_stream", "a stream tells its timings at its end", text(stream=True), lambda a: a.chunks[-1]["timings"]["predicted_n"] == 5)


@talk(C + "test_completion_stream_vs_non_stream", "streamed or not, the text is the same")
def _(server: Server) -> None:
    assert server.text(stream=True, max_tokens=8).streamed() == server.text(max_tokens=8).choice["text"]


@talk(C + "test_completion_with_openai_library", "OpenAI's client reads a completion")
def _(server: Server) -> None:
    answer = server.openai().completions.create(model="tiny", prompt=PROMPT, max_tokens=8, extra_body=NO_END)
    assert answer.system_fingerprint
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text


@talk(C + "test_completion_stream_with_openai_library", "OpenAI's client reads a stream")
def _(server: Server) -> None:
    stream = server.openai().completions.create(model="tiny", prompt=PROMPT, max_tokens=8, stream=True, extra_body=NO_END)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


@talk(C + "test_completion_stream_with_openai_library_stops", "stop strings end a stream and are not in it")
def _(server: Server) -> None:
    whole = server.text(max_tokens=40).choice["text"]
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isascii())
    answer = server.text(max_tokens=40, stream=True, stop=["User:\n", stop])
    assert answer.streamed() == whole[: whole.index(stop)]
    assert answer.pieces()[-1]["finish_reason"] == "stop"


@talk(C + "test_consistent_result_same_seed", "a seed and temperature 0: the same answer each time")
def _(server: Server) -> None:
    answers = [server.text(seed=42, cache_prompt=False, max_tokens=8) for _ in range(4)]
    assert len({answer.choice["text"] for answer in answers}) == 1


@talk(C + "test_different_result_different_seed", "different seeds, different answers")
def _(server: Server) -> None:
    answers = [server.text(seed=seed, temperature=1.0, max_tokens=16) for seed in range(4)]
    assert len({answer.choice["text"] for answer in answers}) == 4


row(C + "test_nocache_long_input_prompt", "a prompt longer than the context is refused", text(prompt=PROMPT * 99), refused("256"))


@talk(C + "test_completion_with_tokens_input", "a prompt of token ids, alone and in a batch")
def _(server: Server) -> None:
    tokens = server.post("/tokenize", {"content": PROMPT, "add_special": True})["tokens"]
    assert isinstance(server.text(prompt=tokens).choice["text"], str)
    batch = server.text(prompt=[tokens, tokens])
    assert batch["choices.0.text"] == batch["choices.1.text"]


@talk(C + "test_completion_with_tokens_input", "a batch of texts and token ids")
def _(server: Server) -> None:
    tokens = server.post("/tokenize", {"content": PROMPT, "add_special": True})["tokens"]
    batch = server.text(prompt=[tokens, PROMPT])
    ok(batch)
    assert batch["choices.0.text"] == batch["choices.1.text"]


row(C + "test_completion_with_tokens_input", "one prompt of texts and token ids", text(prompt=[11, 12, 13, PROMPT, 14, 15, PROMPT]), that("choices.0.text", lambda t: isinstance(t, str)), lambda a: len(a["choices"]) == 1)


@talk(C + "test_completion_parallel_slots", "more requests than slots are all answered")
def _(server: Server) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: server.text(prompt=f"{PROMPT} {n}", temperature=1.0), range(6)))
    assert all(answer.status == 200 and answer.choice["text"] for answer in answers)


N_PROBS = {"logprobs": True, "top_logprobs": 10}


def _is_token(entry: dict[str, object]) -> bool:
    return isinstance(entry["token"], str) and isinstance(entry["bytes"], list) and float(str(entry["logprob"])) <= 0


row(
    C + "test_n_probs",
    "each token has its log-probability and its rivals'",
    chat(**N_PROBS),
    that("choices.0.logprobs.content", lambda tokens: len(tokens) == 5 and all(map(_is_token, tokens))),
    that("choices.0.logprobs.content.4.top_logprobs", lambda top: len(top) == 10 and all(map(_is_token, top))),
)
row(C + "test_n_probs", "n_probs asks for them on completions", text(n_probs=10), that("choices.0.logprobs.top_logprobs", lambda tops: len(tops) == 5 and all(len(t) >= 10 for t in tops)))
row(C + "test_n_probs_stream", "and in a stream", chat(stream=True, **N_PROBS), lambda a: sum(len((p["logprobs"] or {"content": []})["content"]) for p in a.pieces()) == 5)


def _without(server: Server, bias: object) -> None:
    """The first token that would be drawn is not."""
    first = server.text(max_tokens=1, return_token_ids=True).choice
    assert server.text(max_tokens=1, logit_bias=bias).choice["text"] != first["text"]


@talk(C + "test_logit_bias", "a bias by token id, as OpenAI has it")
def _(server: Server) -> None:
    token = server.text(max_tokens=1, return_token_ids=True)["choices.0.token_ids.0"]
    _without(server, {str(token): -100})


@talk(C + "test_logit_bias", "a bias by token id, as a list of pairs")
def _(server: Server) -> None:
    token = server.text(max_tokens=1, return_token_ids=True)["choices.0.token_ids.0"]
    _without(server, [[token, -100]])


@talk(C + "test_logit_bias", "a bias by a token's text")
def _(server: Server) -> None:
    answer = server.text(max_tokens=8, temperature=0, logit_bias={" the": 100})
    ok(answer)
    assert answer.choice["text"] == " the" * 8


@talk(C + "test_logit_bias", "a bias by text, as a list of pairs")
def _(server: Server) -> None:
    answer = server.text(max_tokens=8, logit_bias=[[" the", 100]])
    ok(answer)
    assert answer.choice["text"] == " the" * 8


@talk(C + "test_cancel_request", "a client that gives up frees its slot")
def _(server: Server) -> None:
    with pytest.raises(TimeoutError):
        server.request("POST", TEXT, {"prompt": PROMPT, "max_tokens": 220, "min_tokens": 220}, timeout_s=0.02)
    for _ in range(100):
        if not any(slot["is_processing"] for slot in server.get("/slots").json):
            return
        threading.Event().wait(0.05)
    pytest.fail("a slot is still at work")


# --- test_chat_completion.py --------------------------------------------------------------------------
H = "test_chat_completion.py::"
BOOK = [{"role": "system", "content": "Book"}, *MESSAGES]
row(H + "test_chat_completion", "the id is that of a completion", chat(), that("id", lambda i: "cmpl" in i))
row(H + "test_chat_completion", "the answer names the build", chat(), that("system_fingerprint", bool))
row(H + "test_chat_completion", "usage counts both sides", chat(max_tokens=8), that("usage.prompt_tokens", lambda n: n > 10), equal("usage.completion_tokens", 8))
row(H + "test_chat_completion", "the assistant speaks", chat(), equal("choices.0.message.role", "assistant"))
row(H + "test_chat_completion", "max_tokens is a finish reason", chat(), equal("choices.0.finish_reason", "length"))


@talk(H + "test_chat_completion", "a content in parts is their text")
def _(server: Server) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": " the best book?"}]
    whole, split = (server.chat(messages=BOOK), server.chat(messages=[BOOK[0], {"role": "user", "content": parts}]))
    ok(split)
    assert split["usage.prompt_tokens"] - whole["usage.prompt_tokens"] in (0, 1)  # a newline between parts


CHUNKS = chat(stream=True, max_tokens=8, stream_options={"include_usage": True})
S = H + "test_chat_completion_stream"
row(S, "the first chunk has the role", CHUNKS, lambda a: a.pieces()[0]["delta"]["role"] == "assistant")
row(S, "and null content", CHUNKS, lambda a: a.pieces()[0]["delta"]["content"] is None, differs="it is the empty string, as OpenAI and vLLM send")
row(S, "no other has a role", CHUNKS, lambda a: not any("role" in p["delta"] for p in a.pieces()[1:]))
row(S, "all chunks have one id", CHUNKS, lambda a: len({chunk["id"] for chunk in a.chunks}) == 1)
row(S, "all chunks name model and build", CHUNKS, lambda a: all(c["model"] == "tiny" and c["system_fingerprint"] for c in a.chunks))
row(S, "usage comes in a chunk without choices", CHUNKS, lambda a: a.chunks[-1]["choices"] == [] and a.chunks[-1]["usage"]["completion_tokens"] == 8)
row(S, "one chunk has the finish reason", CHUNKS, lambda a: [p["finish_reason"] for p in a.pieces() if p["finish_reason"]] == ["length"])
row(S, "the chunk with the finish reason has no content", CHUNKS, lambda a: "content" not in a.pieces()[-1]["delta"], differs=FINISH_WITH_TEXT)


@talk(H + "test_chat_completion_with_openai_library", "OpenAI's client chats")
def _(server: Server) -> None:
    answer = server.openai().chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8, seed=42, temperature=0.8, extra_body=NO_END)  # type: ignore[call-overload]
    assert answer.choices[0].finish_reason == "length"


row(H + "test_chat_completion_with_openai_library", "whatever model is named, the only one answers (with --any-model-name)", chat(model="gpt-3.5-turbo-instruct"), ok, on="guarded")
row(
    H + "test_apply_chat_template",
    "the template's text can be had",
    post("/apply-template", {"messages": BOOK}),
    equal("prompt", "<|im_start|>system\nBook<|im_end|>\n<|im_start|>user\nWhat is the best book?<|im_end|>\n<|im_start|>assistant\n"),
)
PREFILL = [*MESSAGES, {"role": "assistant", "content": "Whill"}]
row(
    H + "test_chat_template_assistant_prefill",
    "an assistant's last message is continued on request",
    post("/apply-template", {"messages": PREFILL, "continue_final_message": True, "add_generation_prompt": False}),
    that("prompt", lambda p: p.endswith("assistant\nWhill")),
)
row(
    H + "test_chat_template_assistant_prefill",
    "and without one",
    post("/apply-template", {"messages": PREFILL}),
    that("prompt", lambda p: p.endswith("assistant\nWhill")),
    differs="a history may end with the assistant without being continued, as in vLLM: continue_final_message asks for it",
)
for messages in (None, "string", [123], [{}], [{"role": 123}], [{"role": "system", "content": 123}], [{"role": "system", "content": "test"}, {}]):
    row(H + "test_invalid_chat_completion_req", f"messages {messages!r} are refused", chat(messages=messages), refused())
row(
    H + "test_invalid_chat_completion_req",
    "two last messages of the assistant are refused",
    chat(messages=[*MESSAGES, *[{"role": "assistant", "content": "x"}] * 2]),
    refused(),
    differs="the order of roles is the template's affair: what it renders is answered, and what it refuses is a 400 in its words",
)
TIMED = chat(stream=True, max_tokens=8, timings_per_token=True, stream_options={"include_usage": True})
T = H + "test_chat_completion_with_timings_per_token"
row(T, "the first chunk has no timings", TIMED, lambda a: "timings" not in a.chunks[0])
row(T, "chunks with text have them", TIMED, lambda a: all("timings" in c for c in a.chunks if c["choices"] and c["choices"][0]["delta"].get("content")))
row(T, "they count and tell the speed", TIMED, lambda a: a.chunks[-2]["timings"]["predicted_n"] == 8 and a.chunks[-2]["timings"]["predicted_per_second"] > 0)
LOGPROBS = {"logprobs": True, "top_logprobs": 10, "max_tokens": 8}


def _spells(tokens: list[dict[str, list[int]]], said: str) -> bool:
    return bytes(byte for token in tokens for byte in token["bytes"]).decode(errors="replace") == said


row(H + "test_logprobs", "the tokens' bytes are the answer", chat(**LOGPROBS), lambda a: _spells(a["choices.0.logprobs.content"], a["choices.0.message.content"]))
row(H + "test_logprobs_stream", "a chunk's log-probabilities are of its own text", chat(stream=True, **LOGPROBS), lambda a: _spells([t for p in a.pieces() if p["logprobs"] for t in p["logprobs"]["content"]], a.streamed()))


@talk(H + "test_logit_bias", "a bias holds in chats")
def _(server: Server) -> None:
    token = server.chat(max_tokens=1, return_token_ids=True)["choices.0.token_ids.0"]
    other = server.chat(max_tokens=1, logit_bias={str(token): -100}, return_token_ids=True)
    assert other["choices.0.token_ids.0"] != token


LONG = chat(messages=BOOK * 100)
row(H + "test_context_size_exceeded", "a history beyond the context is refused, with both numbers", LONG, refused("256"))
row(H + "test_context_size_exceeded", "with OpenAI's code for it", LONG, lambda a: a.json["error"]["code"] == "context_length_exceeded")
row(
    H + "test_context_size_exceeded",
    "with a type of its own",
    LONG,
    lambda a: a.json["error"]["type"] == "exceed_context_size_error",
    differs="the type is OpenAI's invalid_request_error, and the code context_length_exceeded tells it apart: that is what clients look for",
)
row(H + "test_context_size_exceeded_stream", "a stream is refused before it begins", chat(messages=BOOK * 100, stream=True), refused("256"))


@talk(H + "test_return_progress", "a stream tells how far its prompt is")
def _(server: Server) -> None:
    messages = [{"role": "user", "content": f"{socket.gethostname()} this is a test " * 5}]
    answer = server.chat(messages=messages, stream=True, return_progress=True)
    told = [chunk["prompt_progress"] for chunk in answer.chunks if chunk.get("prompt_progress")]
    assert told
    assert {one["total"] for one in told} == {told[-1]["processed"]}
    assert all(a["processed"] < b["processed"] for a, b in pairwise(told))
    assert all({"total", "cache", "processed"} <= one.keys() for one in told)


row(H + "test_chat_completions_multiple_choices", "n asks for several", chat(n=2), lambda a: [c["finish_reason"] for c in a["choices"]] == ["length"] * 2)

# --- test_security.py ---------------------------------------------------------------------------------
X = "test_security.py::"
NO_KEY, WRONG = {"authorization": ""}, {"authorization": "Bearer wrong"}
row(X + "test_access_public_endpoint", "health needs no key", get("/health", **NO_KEY), ok, on="guarded")
row(X + "test_access_public_endpoint", "the list of models needs no key", get("/models", **NO_KEY), ok, on="guarded", differs="with keys, only health and the page's files are open: names of models are told to callers only, as vLLM does")
row(X + "test_access_static_assets_without_api_key", "the page's files need no key", get("/ui", **NO_KEY), ok, on="guarded")
row(X + "test_incorrect_api_key", "no key is an authentication error", post(TEXT, {"prompt": PROMPT}, **NO_KEY), status(401), lambda a: a.json["error"]["type"] == "authentication_error", on="guarded")
row(X + "test_incorrect_api_key", "nor is a wrong one", post(TEXT, {"prompt": PROMPT}, **WRONG), status(401), lambda a: a.json["error"]["type"] == "authentication_error", on="guarded")
row(X + "test_correct_api_key", "the right key opens", text(), ok, on="guarded")


@talk(X + "test_correct_api_key_anthropic_header", "so it does as X-Api-Key", on="guarded")
def _(server: Server) -> None:
    ok(server.post(TEXT, {"prompt": PROMPT, "max_tokens": 2}, **NO_KEY, **{"x-api-key": server.key or ""}))


@talk(X + "test_openai_library_correct_api_key", "OpenAI's client may leave /v1 out", on="guarded")
def _(server: Server) -> None:
    answer = server.openai("").chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=2)  # type: ignore[arg-type]
    assert len(answer.choices) == 1


def preflight(path: str, **headers: str) -> Answer | object:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", **headers}
    return lambda server: server.request("OPTIONS", path, None, {**NO_KEY, **asked})


PREFLIGHT = preflight(CHAT, **{"access-control-request-headers": "authorization,x-stainless-os"})
O = X + "test_cors_options"
row(O, "a preflight of an allowed origin is answered", PREFLIGHT, ok, lambda a: a.headers["access-control-allow-origin"] == ORIGIN, on="guarded")
row(O, "any header it asks for is allowed", PREFLIGHT, ok, lambda a: "x-stainless-os" in a.headers["access-control-allow-headers"], on="guarded")
row(O, "GET and POST are", PREFLIGHT, ok, lambda a: all(m in a.headers["access-control-allow-methods"] for m in ("GET", "POST")), on="guarded")
row(O, "credentials are", PREFLIGHT, lambda a: a.headers["access-control-allow-credentials"] == "true", on="guarded")
row(
    O,
    "every origin is allowed by default",
    PREFLIGHT,
    lambda a: a.headers["access-control-allow-origin"] == ORIGIN,
    differs="no origin is allowed that the operator has not named (--cors-origin): any page that is open in a browser could use the server",
)

# --- test_tokenize.py ---------------------------------------------------------------------------------
Z = "test_tokenize.py::"


@talk(Z + "test_tokenize_detokenize", "a text becomes tokens and is the text again")
def _(server: Server) -> None:
    content = "What is the capital of France ?"
    tokens = server.post("/tokenize", {"content": content})["tokens"]
    assert len(tokens) > 5
    assert server.post("/detokenize", {"tokens": tokens})["content"].strip() == content


row(Z + "test_tokenize_with_bos", "add_special is understood", post("/tokenize", {"content": "What?", "add_special": True}), that("tokens", lambda t: len(t) >= 4))
row(
    Z + "test_tokenize_with_pieces",
    "each token may come with its text, characters in several tokens, too",
    post("/tokenize", {"content": "unicode 媽 and emoji 🤗", "with_pieces": True}),
    that("tokens", lambda tokens: all(t["id"] > 0 and len(t["piece"]) > 0 for t in tokens)),
)

# --- the smaller ones ---------------------------------------------------------------------------------
N = "test_ctx_shift.py::"
row(N + "test_ctx_shift_disabled_short_prompt", "n_predict -1 fills the context", text(prompt="x " * 110, max_tokens=None, n_predict=-1), that("usage.total_tokens", lambda n: n == 256))
row(N + "test_ctx_shift_disabled_long_prompt", "what is too long is called so", text(prompt="Lorem ipsum dolor " * 99), refused("context"))
row(N + "test_ctx_shift_disabled_stream", "a stream ends where the context does", text(prompt="x " * 110, max_tokens=None, n_predict=400, stream=True), lambda a: a.pieces()[-1]["finish_reason"] == "length")
row("test_ignore_eos.py::test_ignore_eos_populates_logit_bias", "ignore_eos goes on to max_tokens", text(max_tokens=40), equal("usage.completion_tokens", 40))
row("test_speculative.py::test_slot_ctx_not_exceeded", "a prompt that just fits gets an answer", text(prompt="Hello" * 40, max_tokens=100), ok, that("usage.total_tokens", lambda n: n <= 256))


@talk("test_metrics.py::test_prompt_cache_metrics", "the second time a prompt is cached, and counted")
def _(server: Server) -> None:
    prompt = "A prompt that comes twice, and is long enough to be worth keeping. " * 3
    server.text(prompt=prompt)
    assert server.text(prompt=prompt)["timings.cache_n"] > 0
    assert "rllm_prefix_hit_tokens_total" in server.get("/metrics").text


for adds in (False, True):
    row(
        "test_template.py::test_add_generation_prompt",
        f"add_generation_prompt {adds} is heeded",
        post("/apply-template", {"messages": MESSAGES, "add_generation_prompt": adds}),
        that("prompt", lambda p, adds=adds: p.endswith("assistant\n") is adds),
    )
row("test_chat_truncate.py::test_chat_truncate_overflow_without_chat_truncate_flag", "a long conversation is refused", chat(messages=MESSAGES * 60, max_completion_tokens=1, max_tokens=None), refused("256"))

LEFT_OUT = (
    LeftOut("llama.cpp", "test_completion.py: response fields, generation settings, probabilities after the samplers", "its own door /completion"),
    LeftOut("llama.cpp", "test_chat_completion.py: response_format, json_schema, grammar", "structured output, asked by tests/model/test_structured.py"),
    LeftOut("llama.cpp", "test_chat_completion.py, test_template.py: --chat-template, prefixes of the system message", "templates chosen at its start"),
    LeftOut("llama.cpp", "test_ctx_shift.py::test_ctx_shift_enabled, test_basic.py: tags", "options of its start: a context that is shifted, tags of models"),
    LeftOut("llama.cpp", "test_basic.py::test_load_split_model", "a model in shards (tests/unit/test_preflight.py has those)"),
    LeftOut("llama.cpp", "test_tool_call.py, test_tools_builtin.py, test_server_tools.py, test_mcp_servers.py", "tools, asked by tests/http/test_tools.py"),
    LeftOut("llama.cpp", "test_template.py::test_reasoning, test_reasoning_budget_stream.py", "reasoning"),
    LeftOut("llama.cpp", "test_compat_anthropic.py, test_anthropic_api.py, test_compat_oai_responses.py, test_compat_gcp.py, test_vertexai.py", "other doors"),
    LeftOut("llama.cpp", "test_embedding.py, test_rerank.py, test_rerank_causal.py, test_infill.py, test_audio_transcription.py", "other doors"),
    LeftOut("llama.cpp", "test_vision_api.py, test_mtmd_embd_cache.py, test_security.py::test_local_media_file", "images"),
    LeftOut("llama.cpp", "test_lora.py, test_lora_hotload.py", "adapters"),
    LeftOut("llama.cpp", "test_router.py, test_stream.py, test_log_injection.py, test_alias_presets.py, test_sleep.py, test_model_capabilities.py", "its router of model processes, with streams that are resumed"),
    LeftOut("llama.cpp", "test_slots.py, test_slot_save.py, test_slot_save_mtmd.py, test_slot_clone.py", "slots that clients save, restore and erase"),
    LeftOut("llama.cpp", "test_speculative.py, test_spec_checkpoint_*.py, test_prefill.py, test_chat_truncate.py", "draft models, remote prefill, dropped turns"),
    LeftOut("llama.cpp", "what is left: caches on disk, checkpoints, traces, experiments of single branches", "how it works inside"),
)
