"""A quality run: the reference first, then each variant against it; every part can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rllm_bench.quality import choice, greedy, problems
from rllm_bench.quality.cache import ReferenceCache, key_of
from rllm_bench.quality.choice import Flips, flips
from rllm_bench.quality.datasets import EvaluationData
from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.floor import WIDTH, batching_floor, floor_windows
from rllm_bench.quality.greedy import Agreement, Continuation
from rllm_bench.quality.kldbase import Tokens
from rllm_bench.quality.metrics import Divergence, divergence, perplexity
from rllm_bench.quality.model import OpenModel, Shape, begin_token
from rllm_bench.quality.progress import Bars
from rllm_bench.quality.reference import Reference, computed_reference, score_variant
from rllm_bench.quality.results import Floor, Settings, VariantResult, exact_ratio
from rllm_bench.quality.rows import Scores
from rllm_bench.quality.store import QualityStore
from rllm_bench.quality.windows import cut

FLOOR_CTX = 64
_PAIRS = Shape(num_ctx=256, num_sequences=16)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file and how to load it."""

    file: ModelFile
    open: OpenModel


class Collector:
    """Measures subjects against one reference and keeps the records in a store."""

    def __init__(
        self,
        reference: Subject,
        settings: Settings,
        data: EvaluationData,
        store: QualityStore,
        cache: ReferenceCache,
        engine: str,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._data = data
        self._store = store
        self._cache = cache
        self._engine = engine
        self._pool = pool
        self._bars = Bars()

    def wants(self, task: str) -> bool:
        return task in self._settings.tasks

    @cached_property
    def _text(self) -> tuple[Tokens, int | None, int]:
        with self._reference.open(Shape(num_ctx=16)) as model:
            text = model.vocabulary.tokenize(self._data.text(), add_special=True, parse_special=False)
            windows = cut(text, self._settings.num_ctx, self._settings.num_chunks)
            return windows, begin_token(model.vocabulary), model.vocab_size

    @property
    def tokens(self) -> Tokens:
        return self._text[0]

    @property
    def begin(self) -> int | None:
        return self._text[1]

    @cached_property
    def base_key(self) -> str:
        """What the reference's distributions depend on."""
        return key_of(self._engine, self._reference.file.sha256, self.tokens.tobytes().hex())

    @cached_property
    def base(self) -> Reference:
        num_vocab = self._text[2]
        with self._bars.task("reference: distributions") as progress:
            return computed_reference(
                lambda: self._reference.open(Shape(num_ctx=self._settings.num_ctx)),
                self.tokens, num_vocab, self._cache, self.base_key, self._pool, progress,
            )  # fmt: skip

    @cached_property
    def texts(self) -> list[Continuation]:
        """The reference's greedy texts."""
        wanted = self._settings
        key = key_of(
            self._engine, self._reference.file.sha256, self._data.sha256("problems"), wanted.greedy_prompts
        )

        def compute() -> list[Continuation]:
            questions = [problem.question for problem in self._data.problems()[: wanted.greedy_prompts]]
            with (
                self._reference.open(self._greedy_shape) as model,
                self._bars.task("reference: greedy") as progress,
            ):
                prompts = greedy.question_prompts(model.vocabulary, questions)
                return greedy.continuations(model, prompts, wanted.greedy_tokens, progress)

        return self._store.answers(
            "reference", f"texts{wanted.greedy_tokens}", key, list[Continuation], compute
        )

    @property
    def _greedy_shape(self) -> Shape:
        return Shape(num_ctx=1024 + self._settings.greedy_tokens)

    def reference_result(self) -> VariantResult:
        pairs = self.choices(self._reference) if self.wants("pairs") else None
        solved = self.solutions(self._reference) if self.wants("problems") else None
        return VariantResult(
            model=self._reference.file,
            ppl=perplexity(self.base.storage["nll"].astype(np.float64)) if self.wants("divergence") else None,
            pairs=flips(pairs, pairs) if pairs else None,
            problems=flips(solved, solved) if solved else None,
        )

    def floor(self) -> Floor:
        """The reference against itself."""
        return Floor(
            storage=divergence(self.base.storage) if self.wants("divergence") else None,
            batching=self._batching() if self.wants("divergence") else None,
            greedy=self.agreement(self._reference) if self.wants("greedy") else None,
            pairs=self._pairs_alone() if self.wants("pairs") else None,
        )

    def variant(self, subject: Subject) -> VariantResult:
        scores, speed = self.scores(subject) if self.wants("divergence") else (None, None)
        found = divergence(scores) if scores is not None else None
        return VariantResult(
            model=subject.file,
            divergence=found,
            ppl=found.ppl if found else None,
            ppl_ratio=None if scores is None else exact_ratio(scores["nll"], self.base.storage["nll"]),
            same_top=found.same_top if found else None,
            greedy=self.agreement(subject) if self.wants("greedy") else None,
            pairs=self._against_reference(self.choices, subject) if self.wants("pairs") else None,
            problems=self._against_reference(self.solutions, subject) if self.wants("problems") else None,
            scoring_tps=speed,
        )

    def scores(self, subject: Subject) -> tuple[Scores, float | None]:
        """Per-token scores, and tokens read per second if all of them were computed just now."""
        base = self.base.base
        count, num_ctx = self.tokens.shape
        out = self._store.scores(
            subject.file.name, self._key(subject, self.base_key), num_ctx - 1 - num_ctx // 2
        )
        before, elapsed = out.done, 0.0
        if before < count:
            with (
                subject.open(Shape(num_ctx=num_ctx)) as model,
                self._bars.task(f"{subject.file.name}: divergence") as progress,
            ):
                start = time.perf_counter()
                score_variant(model, base, out, self._pool, progress)
                elapsed = time.perf_counter() - start
        return out.read(count), count * num_ctx / elapsed if elapsed and before == 0 else None

    def agreement(self, subject: Subject) -> Agreement:
        texts = self.texts

        def compute() -> Agreement:
            with (
                subject.open(self._greedy_shape) as model,
                self._bars.task(f"{subject.file.name}: greedy") as progress,
            ):
                return greedy.agreement(model, texts, progress)

        prompts = key_of(*(text.prompt + text.tokens for text in texts))
        return self._store.answers(
            subject.file.name, "greedy", self._key(subject, prompts), Agreement, compute
        )

    def choices(self, subject: Subject, shape: Shape = _PAIRS) -> list[bool]:
        pairs = self._data.pairs()[: self._settings.num_pairs]

        def compute() -> list[bool]:
            with subject.open(shape) as model, self._bars.task(f"{subject.file.name}: pairs") as progress:
                return choice.choose(model, pairs, self._pool, progress)

        key = self._key(subject, self._data.sha256("pairs"), len(pairs))
        return self._store.answers(subject.file.name, f"pairs{shape.num_sequences}", key, list[bool], compute)

    def solutions(self, subject: Subject) -> list[bool]:
        wanted = self._settings
        chosen = self._data.problems()[: wanted.num_problems + problems.NUM_SHOTS]

        def compute() -> list[bool]:
            shape = Shape(num_ctx=2048 + wanted.problem_tokens, num_sequences=8)
            with subject.open(shape) as model, self._bars.task(f"{subject.file.name}: problems") as progress:
                return problems.solve(model, chosen, wanted.problem_tokens, progress)

        key = self._key(subject, self._data.sha256("problems"), len(chosen), wanted.problem_tokens)
        return self._store.answers(subject.file.name, "problems", key, list[bool], compute)

    def _pairs_alone(self) -> Flips:
        alone = self.choices(self._reference, Shape(num_ctx=256))
        return flips(self.choices(self._reference), alone)

    def _batching(self) -> Divergence:
        windows = floor_windows(self.tokens, FLOOR_CTX)
        steps = FLOOR_CTX - 1 - FLOOR_CTX // 2
        key = self._key(self._reference, self.base_key)
        out = self._store.scores("reference", f"floor-{key}", steps * len(windows))
        if out.done == 0:
            shape = Shape(num_ctx=FLOOR_CTX, num_sequences=WIDTH)
            with self._reference.open(shape) as model, self._bars.task("reference: noise floor") as progress:
                out.append(batching_floor(model, windows, self._store.folder, self._pool, progress))
        return divergence(out.read(1))

    def _against_reference(self, answers: Callable[[Subject], list[bool]], subject: Subject) -> Flips:
        return flips(answers(subject), answers(self._reference))

    def _key(self, subject: Subject, *parts: object) -> str:
        return key_of(self._engine, subject.file.sha256, *parts)
