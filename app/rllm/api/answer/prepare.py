"""From a request to a job. One place, in this order: check, render, tokenize, ask."""

from __future__ import annotations

from rllm.api.answer.checks import check_model, check_scores, check_settings, cut
from rllm.api.answer.job import Job, make_job
from rllm.api.answer.machines import NewMachine, machine_for
from rllm.api.answer.parts import PLAIN
from rllm.api.answer.request import Request
from rllm.api.answer.token_options import TokenOptions, has_texts, resolve
from rllm.api.http.json_body import shorten
from rllm.api.http.records import RequestRecord
from rllm.api.settings import ApiSettings
from rllm.api.text.messages import Chat
from rllm.api.text.tokenizing import LONG, ChatPrompt, Prompt, Tokenizer
from rllm.api.text.vocabulary import check_token_ids
from rllm.errors import NotFound
from rllm.serving.service import ServedModel, Service
from rllm.serving.terms import Terms

_PLAINLY: tuple[NewMachine, bool] = (lambda: PLAIN, False)


class Preparer:
    """Everything is refused here that can be refused; what takes time runs off the event loop."""

    def __init__(self, service: Service, settings: ApiSettings, tokenizer: Tokenizer) -> None:
        self._service = service
        self._settings = settings
        self._tokenizer = tokenizer

    async def prepare(self, request: Request, terms: Terms, record: RequestRecord, caller: str) -> Job:
        """
        Raises:
            RllmError: the request is wrong, or can never be or cannot be answered now.
        """
        num_choices = request.n * request.num_prompts
        check_settings(request, num_choices, self._settings)
        model = self.model(request.model)
        record.model, record.streamed = model.id, request.stream
        check_model(request, model, self._settings)
        self._service.check_open(model, num_choices, request.priority, terms)  # before tokens cost time
        if request.constraint is not None:
            await self._tokenizer.run(request.constraint.check, LONG, caller)
        new_machine, shows_special = _PLAINLY
        if isinstance(request.prompts, Chat):
            prompt = await self._chat_prompt(request, request.prompts, model, caller)
            new_machine, shows_special = machine_for(request, prompt)
            prompts = [cut(prompt.tokens, request, model)]
        else:
            prompts = await self.prompts(request, model, caller)
        check_scores(request, prompts, self._settings)
        echo = await self._echo(request, prompts, model, caller)
        options = await self.options(request, model, caller)
        return make_job(
            request,
            model,
            prompts,
            options,
            echo,
            record.request_id,
            new_machine=new_machine,
            shows_special=shows_special,
        )

    def check(self, request: Request) -> ServedModel:
        """What `prepare` refuses for the request's own sake before it looks at the prompt."""
        check_settings(request, request.n * request.num_prompts, self._settings)
        model = self.model(request.model)
        check_model(request, model, self._settings)
        return model

    def model(self, name: str | None) -> ServedModel:
        """
        Raises:
            NotFound: in OpenAI's words, which clients look for.
        """
        try:
            return self._service.model(name)
        except NotFound:
            models = self._service.models()
            if self._settings.any_model_name and len(models) == 1:
                return models[0]
            known = ", ".join(f"'{model.id}'" for model in models) or "none yet"
            raise NotFound(
                f"The model '{shorten(name)}' does not exist; this server has {known}.",
                param="model",
                code="model_not_found",
            ) from None

    async def prompts(self, request: Request, model: ServedModel, caller: str) -> list[tuple[int, ...]]:
        """As tokens, as much of each as the request keeps."""
        may_be_cut = request.truncate_prompt_tokens is not None
        if isinstance(request.prompts, Chat):
            chat = await self._chat_prompt(request, request.prompts, model, caller)
            return [cut(chat.tokens, request, model)]
        prompts = []
        for index, given in enumerate(request.prompts):
            param = request.prompts_name if len(request.prompts) == 1 else f"{request.prompts_name}[{index}]"
            prompt = await self._tokenizer.prompt(
                model,
                given,
                param=param,
                add_special=request.add_special_tokens,
                caller=caller,
                most_bytes=self._settings.max_tokenize_bytes if may_be_cut else 0,
            )
            check_token_ids(prompt, model.info.vocab_size, param)
            prompts.append(cut(prompt, request, model))
        return prompts

    async def _chat_prompt(self, request: Request, chat: Chat, model: ServedModel, caller: str) -> ChatPrompt:
        may_be_cut = request.truncate_prompt_tokens is not None
        return await self._tokenizer.chat_prompt(
            model, chat, caller=caller, may_be_cut=may_be_cut, param=request.prompts_name
        )

    async def options(self, request: Request, model: ServedModel, caller: str) -> TokenOptions:
        if has_texts(request):
            return await self._tokenizer.run(lambda: resolve(request, model.vocabulary), LONG, caller)
        return resolve(request, model.vocabulary)

    async def _echo(
        self, request: Request, prompts: list[tuple[int, ...]], model: ServedModel, caller: str
    ) -> tuple[str, ...]:
        """The texts that begin the answers, one per choice. Ids and cut prompts are shown as their text."""
        if isinstance(request.prompts, Chat) or not request.echoes_prompts:
            return (request.echoed,) * request.n if request.echoed else ()

        async def text(given: Prompt, prompt: tuple[int, ...]) -> str:
            if isinstance(given, str) and request.truncate_prompt_tokens is None:
                return given
            return await self._tokenizer.detokenize(model, prompt, caller=caller)

        texts = [await text(*pair) for pair in zip(request.prompts, prompts, strict=True)]
        return tuple(text for text in texts for _ in range(request.n))
