"""POST /tokenize and /detokenize, as llama-server and vLLM have them.

Both dialects are understood and both are answered: ``tokens`` is the same list in either, ``count`` and
``max_model_len`` are vLLM's; a detokenized text is called ``content`` there and ``prompt`` here.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from rllm.api.context import Context
from rllm.api.convert import check_token_ids
from rllm.api.json_body import check, read_json
from rllm.api.protocol import DetokenizeRequest, TokenizeRequest
from rllm.api.responses import Detokenized, Tokenized, documented
from rllm.api.vocabulary import token_text
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
    async def tokenize(request: Request) -> dict[str, Any]:
        wire = check(TokenizeRequest, await read_json(request, settings.body_timeout_s))
        model = context.model(wire.model)
        tokens = await _tokens(wire, model)
        answer: dict[str, Any] = {
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
        return answer

    @router.post(
        "/detokenize",
        response_model=None,
        summary="Token ids to text",
        **documented(Detokenized, "DetokenizeRequest"),
    )
    async def detokenize(request: Request) -> dict[str, Any]:
        wire = check(DetokenizeRequest, await read_json(request, settings.body_timeout_s))
        model = context.model(wire.model)
        check_token_ids(wire.tokens, model, "tokens")
        text = await context.tokenizer.detokenize(model, wire.tokens)
        return {"content": text, "prompt": text}

    async def _tokens(wire: TokenizeRequest, model: ServedModel) -> tuple[int, ...]:
        if wire.messages is not None:
            begin = {"add_generation_prompt": wire.add_generation_prompt is not False}
            return await context.tokenizer.chat(model, wire.messages, variables=begin)
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
        )

    return router
