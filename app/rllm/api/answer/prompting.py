"""The prompts of a request as tokens."""

from __future__ import annotations

from rllm.api.answer.convert import AnyGeneration, cut
from rllm.api.fields.protocol import ChatCompletionRequest, CompletionRequest
from rllm.api.fields.types import Prompt
from rllm.api.settings import ApiSettings
from rllm.api.text.token_options import check_token_ids
from rllm.api.text.tokenizing import Tokenizer
from rllm.serving.service import ServedModel


async def prompts_of(
    request: AnyGeneration,
    model: ServedModel,
    tokenizer: Tokenizer,
    settings: ApiSettings,
    caller: str,
) -> list[tuple[int, ...]]:
    """As much of each as the request keeps."""
    may_be_cut = request.truncate_prompt_tokens is not None
    if isinstance(request, ChatCompletionRequest):
        prompt = await tokenizer.chat(model, request.messages, request, caller=caller, may_be_cut=may_be_cut)
        return [cut(prompt, request, model)]
    prompts = []
    for index, given in enumerate(request.prompt):
        param = "prompt" if len(request.prompt) == 1 else f"prompt[{index}]"
        prompt = await tokenizer.prompt(
            model,
            given,
            param=param,
            add_special=request.add_special_tokens,
            caller=caller,
            most_bytes=settings.max_tokenize_bytes if may_be_cut else 0,
        )
        check_token_ids(prompt, model.info.vocab_size, param)
        prompts.append(cut(prompt, request, model))
    return prompts


async def echo_of(
    request: CompletionRequest,
    prompts: list[tuple[int, ...]],
    model: ServedModel,
    tokenizer: Tokenizer,
    caller: str,
) -> tuple[str, ...]:
    """The texts that begin the answers, one per choice. Ids and cut prompts are shown as their text."""

    async def text(given: Prompt, prompt: tuple[int, ...]) -> str:
        if isinstance(given, str) and request.truncate_prompt_tokens is None:
            return given
        return await tokenizer.detokenize(model, prompt, caller=caller)

    texts = [await text(*pair) for pair in zip(request.prompt, prompts, strict=True)]
    return tuple(text for text in texts for _ in range(request.n or 1))
