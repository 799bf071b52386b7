"""What the GPU study consists of: pieces that are measured alone, each with its own peers.

A subject is ENGINE:VARIANT, and may go on with +FLAVOUR: further options for the server, or for its requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rllm_bench.run.plan import MatrixConfig

Kind = Literal["unique", "shared-prefix"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells of one kind of load: every concurrency with every prompt and output length."""

    concurrency: tuple[int, ...]
    prompts: tuple[int, ...] = (400,)
    outputs: tuple[int, ...] = (128,)
    kind: Kind = "unique"
    prefix_tokens: int = 0
    requests_per_user: int = 3
    min_requests: int = 5

    def config(self, repeats: int, seed: int) -> MatrixConfig:
        return MatrixConfig(
            concurrency=list(self.concurrency),
            prompt_tokens=list(self.prompts),
            output_tokens=list(self.outputs),
            workload=self.kind,
            prefix_tokens=self.prefix_tokens,
            requests_per_user=self.requests_per_user,
            min_requests=self.min_requests,
            repeats=repeats,
            warmups=0,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """How a subject differs from the plain one."""

    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By engine, for the command line."""
    body: dict[str, Any] = field(default_factory=dict)
    """Fields of every request."""


FLAVOURS = {
    "unified": Flavour(options={"llama-server": ("--kv-unified",), "rllm": ("--kv", "unified")}),
    "nocache": Flavour(options={"llama-server": ("--cache-ram", "0")}),
    "gpusampling": Flavour(options={"llama-server": ("--backend-sampling",)}),
    "graphs": Flavour(options={"rllm": ("--cuda-graphs", "on")}),
    "nographs": Flavour(options={"rllm": ("--cuda-graphs", "off")}),
    "batch2k": Flavour(options={"vllm": ("--max-num-batched-tokens", "2048")}),
    "batch16k": Flavour(
        options={
            "vllm": ("--max-num-batched-tokens", "16384", "--no-enable-prefix-caching", "--disable-log-stats")
        }
    ),
    "ub1k": Flavour(options={"rllm": ("--ubatch-size", "1024")}),
    "ub512": Flavour(options={"rllm": ("--ubatch-size", "512")}),
    "x2": Flavour(options={"rllm": ("--replicas", "2")}),
    # llama-server's own defaults, said to both sides
    "t08": Flavour(body={"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": None}),
    "t08plain": Flavour(body={"temperature": 0.8, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": None}),
}
"""``seed: None`` takes the fixed seed of the greedy runs out of the requests."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    name: str
    what: str
    subjects: tuple[str, ...]
    grids: tuple[Grid, ...]
    slots: int
    ctx: int = 1024
    repeats: int = 1
    cell_timeout_s: float = 75.0
    kills: bool = False
    """Afterwards one of the workers of the last subject is killed under load."""


_CORE = Grid(concurrency=(64, 32, 1, 8))

PIECES = (
    Piece(
        name="core-q4",
        what="Q4_K_M, llama-server with and without its prompt cache in RAM, 400/128, c 1 to 64",
        subjects=("rllm:q4_k_m", "llama-server:q4_k_m", "llama-server:q4_k_m+nocache"),
        grids=(_CORE,),
        slots=64,
        repeats=3,
    ),
    Piece(
        name="t08",
        what="temperature 0.8 (top-k 40, top-p 0.95, min-p 0.05 on both sides) and plain 0.8, c=64",
        subjects=(
            "rllm:f16+t08",
            "llama-server:f16+t08",
            "llama-server:f16+nocache+t08",
            "llama-server:f16+nocache+gpusampling+t08",
            "rllm:f16+t08plain",
        ),
        grids=(Grid(concurrency=(64,), requests_per_user=2),),
        slots=64,
    ),
    Piece(
        name="core-f16",
        what="F16, both llama-servers and vLLM fp16, 400/128, c 1 to 64",
        subjects=("rllm:f16", "llama-server:f16+nocache", "llama-server:f16", "vllm:f16"),
        grids=(_CORE,),
        slots=64,
        repeats=3,
    ),
    Piece(
        name="prefix",
        what="2,000 shared tokens (computed before), 128 of one's own, 128 out, c=32, against vLLM's cache",
        subjects=("rllm:q4_k_m", "rllm:f16", "vllm:f16"),
        grids=(Grid(concurrency=(32,), prompts=(2128,), kind="shared-prefix", prefix_tokens=2000),),
        slots=32,
        ctx=2304,
        repeats=3,
    ),
    Piece(
        name="core-q8",
        what="Q8_0, llama-server with and without its prompt cache in RAM, 400/128, c 1 to 64",
        subjects=("rllm:q8_0", "llama-server:q8_0", "llama-server:q8_0+nocache"),
        grids=(_CORE,),
        slots=64,
        repeats=3,
    ),
    Piece(
        name="instances",
        what="two instances on one card against one, c=32; then kill -9 of one under load",
        subjects=("rllm:q4_k_m", "rllm:q4_k_m+x2"),
        grids=(Grid(concurrency=(32,)),),
        slots=32,
        repeats=2,
        kills=True,
    ),
    Piece(
        name="curve",
        what="what a prefix cache is worth over the length of the prefix, c=8",
        subjects=("rllm:q4_k_m",),
        grids=tuple(
            grid
            for prefix in (512, 1024, 2048, 4096)
            for grid in (
                Grid(
                    concurrency=(8,),
                    prompts=(prefix + 128,),
                    outputs=(16,),
                    kind="shared-prefix",
                    prefix_tokens=prefix,
                    requests_per_user=2,
                ),
                Grid(concurrency=(8,), prompts=(prefix + 128,), outputs=(16,), requests_per_user=2),
            )
        ),
        slots=8,
        ctx=4352,
    ),
    Piece(
        name="unified",
        what="one pool of cells on both sides, c=64, beside the split figures of core-q4",
        subjects=("llama-server:q4_k_m+unified", "rllm:q4_k_m+unified"),
        grids=(Grid(concurrency=(64,), requests_per_user=2),),
        slots=64,
    ),
    Piece(
        name="wide",
        what="indicative: c=128, 400/128",
        subjects=("rllm:q4_k_m", "llama-server:q4_k_m+nocache", "vllm:f16"),
        grids=(Grid(concurrency=(128,), requests_per_user=2),),
        slots=128,
    ),
    Piece(
        name="wide-f16",
        what="indicative: c=128, 400/128, F16",
        subjects=("rllm:f16", "vllm:f16"),
        grids=(Grid(concurrency=(128,), requests_per_user=2),),
        slots=128,
    ),
    Piece(
        name="corners",
        what="indicative: prompts of 128 and 2,048 by outputs of 128 and 512, c=32",
        subjects=("rllm:q4_k_m", "llama-server:q4_k_m+nocache", "vllm:f16"),
        grids=(Grid(concurrency=(32,), prompts=(128, 2048), outputs=(128, 512), requests_per_user=1),),
        slots=32,
        ctx=2816,
    ),
    Piece(
        name="corners-f16",
        what="indicative: the same corners, F16",
        subjects=("rllm:f16", "vllm:f16"),
        grids=(Grid(concurrency=(32,), prompts=(128, 2048), outputs=(128, 512), requests_per_user=1),),
        slots=32,
        ctx=2816,
    ),
    Piece(
        name="tuned-vllm",
        what="vLLM as it comes and with other settings, 400/128, c 1 to 64",
        subjects=("vllm:f16", "vllm:f16+batch2k", "vllm:f16+batch16k"),
        grids=(_CORE,),
        slots=64,
        repeats=3,
    ),
    Piece(
        name="tuned-rllm",
        what="rllm as it comes (micro-batches of 2,048 rows on a GPU) and with smaller ones, F16",
        subjects=("rllm:f16", "rllm:f16+ub1k", "rllm:f16+ub512"),
        grids=(Grid(concurrency=(64, 32)),),
        slots=64,
        repeats=2,
    ),
    Piece(
        name="graphs",
        what="CUDA graphs on and off, Q4_K_M",
        subjects=("rllm:q4_k_m+graphs", "rllm:q4_k_m+nographs"),
        grids=(Grid(concurrency=(64, 32, 1, 8)),),
        slots=64,
    ),
)
"""Most important first: what does not fit into the time is what comes last."""


def split(subject: str) -> tuple[str, str, tuple[str, ...]]:
    """Engine, variant, flavours."""
    engine, _, rest = subject.partition(":")
    variant, *flavours = rest.split("+")
    return engine, variant, tuple(flavours)
