"""What the tests of Ollama's OpenAI layer ask of it, and those of its routes that have a counterpart."""

from __future__ import annotations

import json

from tests.compat.llama_server import FINISH_WITH_TEXT
from tests.compat.table import LeftOut, Table
from tests.compat.talk import CHAT, MESSAGES, PROMPT, TEXT, Server, chat, equal, get, ok, post, refused, text, that

TABLE = Table("Ollama")
row, talk = TABLE.row, TABLE.talk
M, O, R = "middleware/openai_test.go::", "openai/openai_test.go::", "server/routes_generate_test.go::"

row(M + "TestChatMiddleware", "a chat", chat(), equal("object", "chat.completion"))
row(M + "TestChatMiddleware", "a chat with options", chat(max_tokens=9, seed=123, stop=["\n", "stop"], temperature=1.5, frequency_penalty=1.0, presence_penalty=1.0, top_p=0.6), ok)
row(
    M + "TestChatMiddleware",
    "options beyond OpenAI's ranges",
    chat(temperature=3.0, frequency_penalty=4.0, presence_penalty=5.0, top_p=6.0),
    ok,
    differs="a value outside OpenAI's range is refused by name and limit: it is a mistake more often than a wish",
)
row(M + "TestChatMiddleware", "a streamed chat with usage", chat(stream=True, stream_options={"include_usage": True}), lambda a: a.chunks[-1]["usage"]["total_tokens"] > 0)
row(M + "TestChatMiddleware", "a content that is a number is refused, by its name", chat(messages=[{"role": "user", "content": 1.5}]), refused("content"))
row(M + "TestCompletionsMiddleware", "a completion with options", text(temperature=0.8, stop=["\n", "stop"]), equal("object", "text_completion"))
row(M + "TestCompletionsMiddleware", "one stop string", text(stop="\n"), ok)
row(M + "TestCompletionsMiddleware", "a streamed completion with usage", text(stream=True, stream_options={"include_usage": True}), lambda a: a.chunks[-1]["usage"]["total_tokens"] > 0)
row(M + "TestCompletionsMiddleware", "a stop that is a list of numbers is refused, by its name", text(stop=[1.5, 2.5]), refused("stop"))
STREAM = chat(stream=True, stream_options={"include_usage": True}, max_tokens=8)
row(M + "TestChatWriter_StreamRoleOnlyOnFirstChunk", "the role is in the first chunk only", STREAM, lambda a: ["role" in p["delta"] for p in a.pieces()] == [True] + [False] * (len(a.pieces()) - 1))
row(M + "TestChatWriter_StreamSharesOneTimestamp", "all chunks have one time", STREAM, lambda a: len({chunk["created"] for chunk in a.chunks}) == 1)
row(M + "TestChatWriter_StreamFinishReasonLength", "max_tokens ends a stream with length", STREAM, lambda a: a.pieces()[-1]["finish_reason"] == "length" and a.pieces()[0]["finish_reason"] is None)
row(M + "TestChatWriter_StreamRoleOnlyOnFirstChunk", "the chunk with the finish reason has an empty delta", STREAM, lambda a: a.pieces()[-1]["delta"] == {}, differs=FINISH_WITH_TEXT)
row(M + "TestChatWriter_StreamMetricsTrailerSkipsEmptyContentChunk", "usage comes in a chunk with an empty list of choices", STREAM, lambda a: '"choices":[]' in a.frames[-2])
row(M + "TestChatWriter_StreamMetricsTrailerSkipsEmptyContentChunk", "[DONE] is the end", STREAM, lambda a: a.frames[-1] == "[DONE]")
row(M + "TestChatWriter_StreamSingleChunkPathStillEmitsOneChunk", "the stream is one of events", STREAM, lambda a: a.headers["content-type"].startswith("text/event-stream"))
EMPTY = chat(stream=True, ignore_eos=False, logit_bias={"2": 100})
row(M + "TestChatWriter_StreamEmptyCompletionStillEmitsRoleChunk", "an answer of nothing has its role", EMPTY, lambda a: a.pieces()[0]["delta"].items() >= {"role": "assistant", "content": ""}.items())
row(M + "TestChatWriter_StreamEmptyCompletionStillEmitsRoleChunk", "and its end", EMPTY, lambda a: a.pieces()[-1]["finish_reason"] == "stop" and a.streamed() == "")
row(
    M + "TestChatWriter_StreamDoneWithLogprobsNotTreatedAsTrailer",
    "the last token's log-probabilities are not lost",
    chat(stream=True, logprobs=True),
    lambda a: sum(len((p["logprobs"] or {"content": []})["content"]) for p in a.pieces()) == 5,
)
row(M + "TestListMiddleware", "the list of models", get("/v1/models"), equal("object", "list"), that("data.0", lambda m: m["object"] == "model" and m["created"] > 0 and m["owned_by"]))
row(M + "TestRetrieveMiddleware", "one model", get("/v1/models/tiny"), equal("id", "tiny"))
row(M + "TestRetrieveMiddleware", "an unknown model is a 404 that names it", get("/v1/models/no-such-model"), refused("no-such-model", code=404))
row(O + "TestFromChatRequest_Basic", "the model's name comes back", chat(model="tiny"), equal("model", "tiny"))
row(O + "TestFromCompleteRequest_Basic", "so it does of a completion", text(model="tiny"), equal("model", "tiny"))
row(O + "TestToUsage", "usage adds up", chat(), lambda a: a["usage.total_tokens"] == a["usage.prompt_tokens"] + a["usage.completion_tokens"])
row(O + "TestNewError", "a bad request is an invalid_request_error", chat(max_tokens="x"), refused(), lambda a: a.json["error"]["type"] == "invalid_request_error")
row(
    O + "TestNewError",
    "a missing model is a not_found_error",
    chat(model="none"),
    lambda a: a.status == 404 and a.json["error"]["type"] == "not_found_error",
    differs="the type is invalid_request_error with the code model_not_found, as OpenAI answers",
)
row(O + "TestFromChatRequest_WithLogprobs", "five rivals of each token", chat(logprobs=True, top_logprobs=5), that("choices.0.logprobs.content.0.top_logprobs", lambda x: len(x) == 5))
row(O + "TestFromChatRequest_LogprobsDefault", "none without asking", chat(), equal("choices.0.logprobs", None))
row(O + "TestFromCompleteRequest_WithLogprobs", "of a completion", text(logprobs=5), that("choices.0.logprobs.token_logprobs", lambda x: len(x) == 5))
row(O + "TestToChatCompletion_WithLogprobs", "a token's likeliest rival is listed first", chat(logprobs=True, top_logprobs=3), that("choices.0.logprobs.content.0.top_logprobs", lambda x: x == sorted(x, key=lambda t: -t["logprob"])))
row(O + "TestToListCompletionUsesModelIdentity", "a model is listed under the name that serves it", get("/v1/models"), that("data", lambda d: [m["id"] for m in d] == ["tiny"]))
row(R + "TestGenerateChat", "a request without a body is refused", post(CHAT, b""), refused())
row(R + "TestGenerateChat", "an unknown model is a 404", chat(model="test-missing"), refused("test-missing", code=404))
row(R + "TestGenerate", "a completion without a body is refused", post(TEXT, b""), refused())
row(R + "TestGenerateLogprobs", "top_logprobs below 0 is refused", chat(logprobs=True, top_logprobs=-1), refused(param="top_logprobs"))
row(R + "TestGenerateLogprobs", "top_logprobs above 20 is refused", chat(logprobs=True, top_logprobs=21), refused(param="top_logprobs"))
row(R + "TestChatLogprobs", "a token's bytes are told", chat(logprobs=True), that("choices.0.logprobs.content", lambda x: all(t["bytes"] for t in x)))


@talk(R + "TestGenerateChat", "a system message in the middle stays where it is")
def _(server: Server) -> None:
    messages = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "I can help!"}, {"role": "system", "content": "You can perform magic."}, *MESSAGES]
    prompt = server.post("/apply-template", {"messages": messages})["prompt"]
    assert prompt.index("I can help!") < prompt.index("You can perform magic.") < prompt.index("best book")


row("server/prompt_test.go::TestChatPrompt", "what is in a message is not rewritten", post("/apply-template", {"messages": [{"role": "user", "content": "  a\n\n b  "}]}), that("prompt", lambda p: "  a\n\n b  <|im_end|>" in p))
row("server/routes_test.go::TestRoutes", "the version is told", get("/version"), that("version", bool))
row("integration/basic_test.go::TestUnicodeOutput", "a stream is valid UTF-8", text(stream=True, max_tokens=60), lambda a: json.dumps(a.streamed()) != "")
row("integration/context_test.go::TestLongInputContext", "a long input is answered or refused, and nothing breaks", text(prompt=PROMPT * 60), refused("context"))

LEFT_OUT = (
    LeftOut("Ollama", "server/: /api/generate, /api/chat, /api/create, /api/show and the other routes of its own", "its own door"),
    LeftOut("Ollama", "openai_test.go, middleware: tools, thinking, images", "images; tools and thoughts, asked by tests/http/test_tools.py"),
    LeftOut("Ollama", "middleware/openai_test.go::TestResponsesMiddlewareZstd, responses_test.go, anthropic_test.go, *encoding_format*, *web_search*, embeddings", "other doors"),
    LeftOut("Ollama", "sched_test.go, create, download, quantization, images, manifests, cloud", "how it keeps models"),
    LeftOut("Ollama", "integration/: the rest", "answers of certain models, read for their meaning"),
)
