"""What every route needs, made once by the factory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from rllm.api.http.fair_threads import FairThreads
from rllm.api.http.json_body import BodyReader, shorten
from rllm.api.settings import ApiSettings
from rllm.api.text.tokenizing import Tokenizer
from rllm.errors import NotFound
from rllm.serving.service import ServedModel, Service


@dataclass(frozen=True, slots=True)
class Context:
    service: Service
    settings: ApiSettings
    threads: FairThreads
    bodies: BodyReader
    tokenizer: Tokenizer
    render_metrics: Callable[[], bytes] | None

    def model(self, name: str | None) -> ServedModel:
        """
        Raises:
            NotFound: in OpenAI's words, which clients look for.
        """
        try:
            return self.service.model(name)
        except NotFound:
            if self.settings.any_model_name and len(self.service.models()) == 1:
                return self.service.models()[0]
            known = ", ".join(f"'{model.id}'" for model in self.service.models()) or "none yet"
            raise NotFound(
                f"The model '{shorten(name)}' does not exist; this server has {known}.",
                param="model",
                code="model_not_found",
            ) from None


def new_response_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    return int(time.time())
