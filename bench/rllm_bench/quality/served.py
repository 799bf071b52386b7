"""Perplexity and top-1 agreement of a model that is only reachable over HTTP.

vLLM's ``prompt_logprobs`` first, then OpenAI's ``echo`` with ``logprobs``. Either gives a few tokens
per position, never the whole distribution: a KL divergence cannot be had this way.
"""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import numpy as np

from rllm_bench.load.direct import open_url
from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.kldbase import BaseReader, Layout, Tokens
from rllm_bench.quality.metrics import Estimate, perplexity
from rllm_bench.quality.reference import Reference
from rllm_bench.quality.results import VariantResult, exact_ratio
from rllm_bench.quality.rows import HEADER_CODES, Floats, Ints


class ServedError(RuntimeError):
    """The server does not give log-probabilities of the prompt, or not in a form we can read."""


def score_served(url: str, tokens: Tokens, begin: int | None, reference: Reference) -> VariantResult:
    """Sends every window as token ids; the server must use the reference's vocabulary."""
    name = _post_or_get(f"{url.rstrip('/')}/v1/models", None)["data"][0]["id"]
    nll, agrees = [], []
    with BaseReader(reference.base) as base:
        for index, window in enumerate(tokens):
            seen = [begin, *window[1:].tolist()] if begin is not None else window.tolist()
            own, top = _prompt_scores(url, name, seen, base.layout)
            theirs = base.chunk(index)[:, HEADER_CODES : HEADER_CODES + base.layout.num_vocab].argmax(axis=1)
            nll.append(own)
            agrees.append(top == theirs)
    all_nll = np.concatenate(nll)
    same, count = float(np.concatenate(agrees).mean()), len(all_nll)
    return VariantResult(
        model=ModelFile(
            name=f"{name} at {url}", path="", sha256="", file_type="served", file_bytes=0, num_params=0,
            type_shares={}, served=url,
        ),
        ppl=perplexity(all_nll.astype(np.float64)),
        ppl_ratio=exact_ratio(all_nll, reference.storage["nll"]),
        same_top=Estimate(same, math.sqrt(same * (1 - same) / max(1, count - 1))),
    )  # fmt: skip


def _prompt_scores(url: str, model: str, seen: list[int], layout: Layout) -> tuple[Floats, Ints]:
    """Of the scored rows: the negative log-likelihood of the next token, and the most likely one."""
    asked: dict[str, Any] = {"model": model, "prompt": seen, "max_tokens": 1, "temperature": 0}
    address = f"{url.rstrip('/')}/v1/completions"
    try:
        choice = _post_or_get(address, asked | {"prompt_logprobs": 1})["choices"][0]
        listed = choice.get("prompt_logprobs")
    except ServedError:
        listed = None
    if listed is None:
        echo = {"echo": True, "logprobs": 1, "return_tokens_as_token_ids": True}
        listed = _from_echo(_post_or_get(address, asked | echo)["choices"][0], seen)
    rows = range(layout.first_scored + 1, layout.num_ctx)
    try:
        nll = [-float(listed[row][str(seen[row])]["logprob"]) for row in rows]
        top = [int(max(listed[row].items(), key=lambda item: item[1]["logprob"])[0]) for row in rows]
    except (KeyError, IndexError, TypeError) as exc:
        raise ServedError(f"{url}: the log-probabilities of the prompt are incomplete ({exc!r})") from exc
    return np.array(nll, np.float32), np.array(top, np.int64)


def _from_echo(choice: dict[str, Any], seen: list[int]) -> list[dict[str, dict[str, float]] | None]:
    """OpenAI's arrays in vLLM's form. Tokens must be named by their ids: texts are ambiguous."""
    found = choice.get("logprobs") or {}
    own, tops = found.get("token_logprobs"), found.get("top_logprobs")
    if not own or not tops or len(own) < len(seen):
        raise ServedError(
            "the server gives no log-probabilities of the prompt: neither prompt_logprobs nor echo work"
        )
    out: list[dict[str, dict[str, float]] | None] = [None]
    for token, logprob, top in zip(seen[1:], own[1:], tops[1:], strict=False):
        entry = {str(token): {"logprob": logprob}}
        for text, value in (top or {}).items():
            if not text.startswith("token_id:"):
                raise ServedError(
                    "the server names tokens by their text (return_tokens_as_token_ids was ignored)"
                )
            entry[text.removeprefix("token_id:")] = {"logprob": value}
        out.append(entry)
    return out


def _post_or_get(url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    try:
        with open_url(request, 600) as answer:
            return json.load(answer)
    except HTTPError as exc:
        raise ServedError(f"{url}: HTTP {exc.code}: {exc.read(300).decode(errors='replace')}") from exc
    except OSError as exc:
        raise ServedError(f"{url}: {exc}") from exc
