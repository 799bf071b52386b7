"""POST /tokenize and /detokenize, as llama-server and vLLM have them.

Both dialects are understood and both are answered: ``tokens`` is the same list in either, ``count`` and
``max_model_len`` are vLLM's; a detokenized text is called ``content`` there and ``prompt`` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.openai_chat.wire import to_chat
from rllm.api.doors.tokens.answers import Detokenized, Tokenized
from rllm.api.doors.tokens.render import add_rendering
from rllm.api.doors.tokens.wire import DetokenizeRequest, TokenizeRequest
from rllm.api.http.client import Client
from rllm.api.http.middleware import caller_of
from rllm.api.text.vocabulary import check_token_ids, token_text
from rllm.errors import BadRequest
from rllm.serving.service import ServedModel


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["tokens"])
    settings = context.settings

    @router.post(
        "/tokenize",
        response_model=None,
        summary="Text to token ids",
        **documented(Tokenized, "TokenizeRequest"),
    )
    async def tokenize(request: Request) -> Response:
        caller = caller_of(request.scope)
        wire = await context.read(request, TokenizeRequest)
        model = context.model(wire.model)
        async with Client(request.receive) as client:
            tokens = await client.unless_gone(_tokens(wire, model, caller))
            body = await client.unless_gone(
                context.threads.run(partial(_tokenized, wire, tokens, model), caller=caller)
            )
        return Response(body, media_type="application/json")

    @router.post(
        "/detokenize",
        response_model=None,
        summary="Token ids to text",
        **documented(Detokenized, "DetokenizeRequest"),
    )
    async def detokenize(request: Request) -> Response:
        caller = caller_of(request.scope)
        wire = await context.read(request, DetokenizeRequest)
        model = context.model(wire.model)
        check_token_ids(wire.tokens, model.info.vocab_size, "tokens")
        async with Client(request.receive) as client:
            text = await client.unless_gone(context.tokenizer.detokenize(model, wire.tokens, caller=caller))
        return Response(orjson.dumps({"content": text, "prompt": text}), media_type="application/json")

    async def _tokens(wire: TokenizeRequest, model: ServedModel, caller: str) -> tuple[int, ...]:
        if wire.messages is not None:
            return await context.tokenizer.chat(model, to_chat(wire.messages, wire), caller=caller)
        param = "content" if wire.content is not None else "prompt"
        text = wire.content if wire.content is not None else wire.prompt or ""
        if len(text.encode()) > settings.max_tokenize_bytes:
            raise BadRequest(f"{param} may have at most {settings.max_tokenize_bytes} bytes", param=param)
        add_special = wire.add_special if wire.add_special is not None else wire.add_special_tokens
        return await context.tokenizer.any_text(
            model,
            text,
            add_special=param == "prompt" if add_special is None else add_special,
            parse_special=wire.parse_special is not False,
            caller=caller,
        )

    add_rendering(router, context)
    return router


def _tokenized(wire: TokenizeRequest, tokens: Sequence[int], model: ServedModel) -> bytes:
    """The answer; of a million tokens with their texts it takes a second."""
    answer: dict[str, object] = {
        "tokens": tokens,
        "count": len(tokens),
        "max_model_len": model.info.ctx_per_slot,
    }
    if wire.with_pieces or wire.return_token_strs:
        texts = [token_text(model.vocabulary, token) for token in tokens]
        if wire.return_token_strs:
            answer["token_strs"] = texts
        if wire.with_pieces:
            pairs = zip(tokens, texts, strict=True)
            answer["tokens"] = [{"id": token, "piece": text} for token, text in pairs]
    return orjson.dumps(answer)


TOKENS = Door(make_router, (TokenizeRequest, DetokenizeRequest))
