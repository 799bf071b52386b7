"""What the engine is asked and what it answers: plain data, also the payload of the worker's IPC frames.

What comes with every step travels as an array, without the names of its fields.
Everything here is immutable and made of integers, floats and strings, so that it can be logged,
compared, replayed and sent between processes. Times are seconds on the monotonic clock of one machine.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from rllm.engine.constraint import Constraint


class FinishReason(StrEnum):
    """Why a request ended. STOP and LENGTH are the client's wish; the others are reported as such."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn. Values that switch a filter off are the defaults.

    ``temperature == 0`` means greedy. ``top_k == 0`` and ``typical_p == 1`` mean "off".
    ``logit_bias`` adds to single logits; penalties look back over ``penalty_last_n`` tokens (-1: all).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = -1
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_tokens: tuple[int, ...] = ()
    """Nothing else is drawn. Empty: anything may be."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens whose last one is not drawn where the others have just been."""
    num_logprobs: int = -1
    """-1: none are reported; N >= 0: the drawn token's log probability and the N most likely tokens."""
    num_prompt_logprobs: int = -1
    """The same for the prompt's tokens, which are then all computed."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature <= 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds where a request says nothing. As they stand here: OpenAI's."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


OPENAI_SAMPLING = SamplingDefaults()


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate. ``n > 1`` and lists of prompts are several of these.

    ``prompt`` is never empty. The door has already checked that prompt and ``max_tokens`` fit the context.
    With ``max_tokens`` 0 the prompt is computed and nothing is drawn.
    """

    id: str
    prompt: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end the answer as the model's own end tokens do."""
    keeps_stop: bool = False
    """The stop string or token that ended the answer is a part of its text."""
    shows_special: bool = False
    """Control tokens have their names as text."""
    reports_steps: bool = False
    """Every event has usage and timings so far, and steps that computed a part of the prompt have one."""
    reuses_prefix: bool = True
    sampling: SamplingParams = SamplingParams()
    constraint: Constraint | None = None
    """What the answer must match; checked by the door."""
    priority: int = 0
    """Lower runs earlier, as in vLLM."""
    cache_salt: str = ""
    """Prefixes are shared only between requests with the same salt."""

    @property
    def salt(self) -> str:
        """``cache_salt``, or one that nobody else has: a prompt that has to be computed shares nothing."""
        return f"{self.cache_salt}\0{self.id}" if self.computes_all else self.cache_salt

    @property
    def computes_all(self) -> bool:
        return self.scores_prompt or not self.reuses_prefix

    @property
    def scores_prompt(self) -> bool:
        """Log probabilities of its tokens are wanted: a prefix that is there has no logits any more."""
        return self.sampling.num_prompt_logprobs >= 0


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    token: int
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log probability (natural log, before penalties and filters) of a token and of its rivals."""

    token: int
    logprob: float
    top: tuple[TopLogprob, ...]
    rank: int = 0
    """Of the token among all, from 1 on; counted for prompts only."""


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Where one request's time went, in seconds; the three add up to its life in the worker."""

    queue_s: float
    prefill_s: float
    decode_s: float


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one finished request. ``cached_tokens`` of the prompt were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """What one step brought for one request.

    ``text`` may be empty (an incomplete UTF-8 sequence or a possible stop string is held back).
    With ``finish`` set this is the request's last event. The last one has ``usage`` and ``timings``, as have
    all of a request that `reports_steps`.
    """

    request_id: str
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    stop_string: str | None = None
    """The stop string that matched, where one did."""
    error: str | None = None
    """With ``finish == ERROR``: one sentence that may be shown to the client."""
    usage: Usage | None = None
    timings: Timings | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of prompt tokens, where they are wanted: of each but the first, in order, over several events."""
    computed_prompt: int = 0
    """How many tokens of the prompt have been computed or reused, where that is reported."""


class Started(msgspec.Struct, frozen=True, array_like=True):
    """A request was given a sequence id, for the first time."""

    request_id: str
    seq: int
    cached_tokens: int
    """Of its prompt, found resident."""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """What one step did, for whoever watches. Counts of this step, gauges after it."""

    decode_tokens: int = 0
    prefill_tokens: int = 0
    plan_s: float = 0.0
    execute_s: float = 0.0
    """llama_decode and waiting for it."""
    sample_s: float = 0.0
    commit_s: float = 0.0
    running: int = 0
    """Requests that hold a slot."""
    waiting: int = 0
    """Requests that hold none."""
    kv_used: int = 0
    """Cells that hold a token, of running requests and of resident prefixes."""
    cached_tokens: int = 0
    """Prompt tokens that admissions of this step found resident."""
    evicted_tokens: int = 0
    preemptions: int = 0
    kv_blocked: int = 0
    """1: a request would have got a slot, and there were no cells for its prompt."""
    slow_samples: int = 0
    """Rows sampled on a path that is slower than the best one."""
    retries: int = 0
    """Extra llama_decode calls that return codes made necessary."""
    graphs_reused: int = 0
    spills: int = 0
    """Prefixes that were stored outside the cache."""
    spill_s: float = 0.0
    restores: int = 0
    restored_tokens: int = 0
    restore_s: float = 0.0
    store_failures: int = 0
    """Prefixes that could not be stored, written, read or restored."""
    store_bytes: int = 0
    """Stored prefixes in memory."""
    store_disk_bytes: int = 0
    drafted_tokens: int = 0
    """Drafts computed beside the decodes."""
    accepted_tokens: int = 0
    """Drafts that were right: each saved a decode."""
    card_samples: int = 0
    """Rows sampled from their highest logits alone, which a GPU found."""
    prefill_token_s: float | None = None
    """Seconds for one more prompt token in a step, learned so far."""


class ComputePath(msgspec.Struct, frozen=True, kw_only=True):
    """By which code an instance computes: what every figure of its speed depends on."""

    buffer_types: tuple[str, ...] = ()
    """Where the weights lie, in llama.cpp's words: CPU, CPU_REPACK, AMX, CUDA0, …"""
    repack: bool = True
    """Whether weights may be kept in another order for faster kernels; ``buffer_types`` says if any are."""
    flash_attn: bool = True
    cuda_graphs: bool | None = None
    """None: there is no GPU."""
    threads: int = 0
    threads_batch: int = 0
    ubatch_size: int = 0
    features: tuple[str, ...] = ()
    """What llama.cpp was compiled to use, e.g. AVX2, AMX_INT8."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded instance is and can hold. Sent once, when the worker is ready."""

    path: str
    description: str
    """As llama.cpp words it, e.g. "llama 135M Q4_K - Medium"."""
    architecture: str
    num_params: int
    size_bytes: int
    vocab_size: int
    num_ctx_train: int
    slots: int
    num_sequences: int
    """Sequence ids of the context: at least ``slots``; the others can hold idle prefixes (unified only)."""
    ctx_per_slot: int
    """Tokens one request may hold, prompt and output together."""
    kv_cells: int
    """Cells of the whole cache; shared by all slots when unified, else ``slots * ctx_per_slot``."""
    kv_unified: bool
    kv_bytes: int
    batch_size: int
    """Most tokens in one llama_decode call."""
    device: str
    can_reuse_prefix: bool
    """False where the memory cannot drop the tail of a sequence (recurrent, hybrid, sliding window)."""
    max_drafted: int = 0
    """Most drafts that one step can compute, of all sequences together."""
    max_scored: int = 0
    """Most prompt tokens whose log probabilities one step can compute. 0: none ever."""
    overlaps: bool = False
    """Something else can be done while a step of decodes is computed: a device computes, not this process."""
    flat_decode: bool = False
    """A decode step takes about as long for many sequences as for few: on a GPU."""
    copy_cells: int = 0
    """Split cache: a copy between streams moves at least so many cells, however short the source is."""
    store_bytes: int = 0
    """Memory for prefixes outside the KV cache; 0: there is no such store."""
    store_disk_bytes: int = 0
    load_s: float = 0.0
    buffers: dict[str, int] = {}
    """Bytes by place and purpose, as the backend allocated them, e.g. "CUDA0 KV"."""
    compute: ComputePath = ComputePath()

    @property
    def max_request_tokens(self) -> int:
        """Tokens that a request can have, prompt and output together, when it is alone."""
        return min(self.ctx_per_slot, self.kv_cells)
