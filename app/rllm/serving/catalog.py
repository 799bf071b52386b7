"""The models that were asked for: those that are served, and why the others are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rllm.engine.port import Vocabulary
from rllm.engine.types import OPENAI_SAMPLING, ModelInfo, SamplingDefaults
from rllm.errors import NotFound, Overloaded, StartError
from rllm.serving.admission import MAX_RETRY_S
from rllm.serving.observer import Observer
from rllm.serving.service import ServedModel
from rllm.workers.frames import WorkerSpec


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model to serve: its name, where its vocabulary comes from, and one specification per instance."""

    id: str
    aliases: tuple[str, ...]
    load_vocabulary: Callable[[], Vocabulary]
    workers: tuple[WorkerSpec, ...]
    smaller: str | None = None
    """Another model of this server, with the same vocabulary, that answers instead under overload."""
    fallback: str | None = None
    """The same, while no instance of this one takes requests."""
    sampling: SamplingDefaults = OPENAI_SAMPLING


class Catalog:
    """Finds a model by the name that a client gives."""

    def __init__(self, plans: Mapping[str, ModelPlan], observer: Observer) -> None:
        self.not_served: dict[str, str] = {}
        """Why, by model."""
        self.models: dict[str, ServedModel] = {}
        """Those that are served, by their id."""
        self._plans = plans
        self._observer = observer
        self._names: dict[str, str] = {}

    def add(self, plan: ModelPlan, info: ModelInfo, vocabulary: Vocabulary) -> None:
        """It has been loaded and is served from now on."""
        self.models[plan.id] = ServedModel(
            plan.id, plan.aliases, int(time.time()), info, vocabulary, plan.sampling
        )
        for name in (plan.id, *plan.aliases):
            self._names.setdefault(name, plan.id)

    def leave_out(self, plan: ModelPlan, error: StartError) -> None:
        """It could not be started; the others are served."""
        self.not_served[plan.id] = _without_folder(str(error), plan)
        self._observer.on_not_served(plan.id, str(error))

    def check_complete(self) -> None:
        """
        Raises:
            StartError: no model is served, or one names another that cannot answer for it.
        """
        if not self.models:
            raise StartError("; ".join(self.not_served[name] for name in self._plans))
        for plan in self._plans.values():
            for other in (plan.smaller, plan.fallback):
                if other is None or self.not_served.keys() & {other, plan.id}:
                    continue
                if other not in self.models or other == plan.id:
                    raise StartError(f"model {plan.id}: {other!r} is no other model of this server")
                if not _speak_alike(self.models[plan.id].vocabulary, self.models[other].vocabulary):
                    raise StartError(f"model {plan.id}: {other!r} has another vocabulary")

    @property
    def is_loading(self) -> bool:
        return len(self.models) + len(self.not_served) < len(self._plans)

    def served(self) -> list[ServedModel]:
        return [self.models[name] for name in self._plans if name in self.models]

    def find(self, name: str | None) -> ServedModel:
        """The model of this name or alias, or its stand-in; the first one for None.

        Raises:
            NotFound: there is none of this name.
            Overloaded: it is still loading, or could not be started.
        """
        models = self.served()
        if name is None and models:
            return models[0]
        if name in self.not_served:
            return self._stand_in(name)
        found = self._names.get(name or "")
        if found is None and self.is_loading:
            raise Overloaded("the models are still loading", code="model_loading", retry_after_s=2.0)
        if found is None:
            there = ", ".join(model.id for model in models) or "none yet"
            raise NotFound(f"model {name!r} is not served here; there is: {there}", param="model")
        return self.models[found]

    def _stand_in(self, name: str) -> ServedModel:
        """Who answers for a model that could not be started.

        Raises:
            Overloaded: nobody.
        """
        fallback = self.models.get(self._plans[name].fallback or "")
        if fallback is None:
            raise Overloaded(
                f"model {name!r} could not be started and is not served; /health says why",
                code="model_not_served",
                retry_after_s=MAX_RETRY_S,
            )
        self._observer.on_rerouted(name, fallback.id, "fallback")
        return fallback


def _without_folder(text: str, plan: ModelPlan) -> str:
    """/health is open to everybody, and where files lie is nobody's business."""
    path = Path(plan.workers[0].model_path)
    return text.replace(str(path), path.name) if path.name else text


def _speak_alike(one: Vocabulary, other: Vocabulary) -> bool:
    """Prompts are tokenized once: the token ids of one must mean the same to the other."""
    if one.size != other.size or one.end_tokens != other.end_tokens:
        return False
    step = max(1, one.size // 1000)
    return all(one.piece(token) == other.piece(token) for token in range(0, one.size, step))
