"""What each model may have of its own: how much it serves at once, its cache, its speed, its sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from rllm.settings.option import Option

DEFAULT_CTX = 4096
DEFAULT_SLOTS = 8
MAX_SLOTS = 256
"""LLAMA_MAX_SEQ of the llama.cpp this package is built on."""
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
_TYPES = ", ".join(get_args(CacheType))


@dataclass(frozen=True, slots=True)
class Engine:
    """How much one model serves at once, and on what."""

    slots: Annotated[
        int,
        Field(ge=0, le=MAX_SLOTS),
        Option(
            "Requests that are answered at the same time. Further ones wait.",
            flags=("-np", "--parallel"),
            unit="N",
            default=f"{DEFAULT_SLOTS} on the CPU; on a GPU as many as fit, up to 64",
            common=True,
        ),
    ] = 0
    ctx_size: Annotated[
        int,
        Field(ge=0),
        Option(
            "Most tokens of one request, prompt and answer together. Every slot has this much for itself; "
            "llama-server's -c is shared by all slots.",
            flags=("-c",),
            unit="TOKENS",
            default=f"what the model was trained on, at most {DEFAULT_CTX}",
            common=True,
        ),
    ] = 0
    threads: Annotated[
        int,
        Field(ge=0, le=512),
        Option(
            "CPU threads that compute.", flags=("-t",), unit="N", default="the number of cores", common=True
        ),
    ] = 0
    threads_batch: Annotated[
        int,
        Field(ge=0, le=512),
        Option("CPU threads that compute prompts.", flags=("-tb",), unit="N", default="like --threads"),
    ] = 0
    gpu_layers: Annotated[
        int,
        Field(ge=-1),
        Option(
            "Layers of the model that are put on the GPU. -1: all of them. 0: compute on the CPU.",
            flags=("-ngl", "--n-gpu-layers"),
            unit="N",
            default="all, if there is a GPU",
            common=True,
        ),
    ] = -1
    flash_attn: Annotated[
        Literal["auto", "on", "off"],
        Option(
            "Flash attention: faster with long contexts, and needed for a quantized --cache-type-v.",
            flags=("-fa",),
            common=True,
        ),
    ] = "auto"
    gpu_memory_utilization: Annotated[
        float,
        Field(gt=0, le=1),
        Option(
            "Largest share of a GPU's memory that the model may take, all its replicas together.",
            unit="SHARE",
            common=True,
        ),
    ] = 0.9
    replicas: Annotated[
        int,
        Field(ge=1, le=64),
        Option(
            "Worker processes of the model. Each has slots and a cache of its own.", unit="N", common=True
        ),
    ] = 1
    devices: Annotated[
        str,
        Option(
            "CUDA devices that the replicas take in turn, with commas: 0,1.",
            unit="LIST",
            default="every replica uses all devices",
        ),
    ] = ""
    exact: Annotated[
        bool,
        Option(
            "Make greedy answers independent of the cache and of other requests (docs/exactness.md). For "
            "Q8_0 files on the CPU; prompts take longer."
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV cache: what the model remembers of the requests it computes."""

    cache_type_k: Annotated[
        CacheType,
        Option(
            f"Number format of the keys: {_TYPES}. A smaller one leaves room for more slots.",
            flags=("-ctk",),
            unit="TYPE",
            common=True,
        ),
    ] = "f16"
    cache_type_v: Annotated[
        CacheType,
        Option(
            "Number format of the values, one of the same. A quantized one needs flash attention.",
            flags=("-ctv",),
            unit="TYPE",
            common=True,
        ),
    ] = "f16"
    kv: Annotated[
        Literal["auto", "split", "unified"],
        Option("Layout: split gives each slot a part of its own, unified lets all slots share one."),
    ] = "auto"
    kv_cells: Annotated[
        int,
        Field(ge=0),
        Option(
            "Tokens that a unified cache holds for all slots together. With fewer than slots x ctx-size, "
            "more short requests run at once than long ones would fit.",
            unit="TOKENS",
            default="slots x ctx-size",
        ),
    ] = 0
    prefix_cache: Annotated[
        bool, Option("Reuse what was computed for the beginning of a prompt that came before.")
    ] = True


@dataclass(frozen=True, slots=True)
class PrefixStore:
    """Memory and files for computed prompts that no longer fit the KV cache."""

    mb: Annotated[
        int,
        Field(ge=-1),
        Option(
            "Memory of each replica for computed prompts that no longer fit the KV cache. 0: none. -1: a "
            "quarter of the free memory, at most 512, on the CPU or with --prefix-store-dir; else none.",
            name="prefix_store_mb",
            unit="MIB",
        ),
    ] = -1
    dir: Annotated[
        Path | None,
        Option(
            "Folder where these prompts are kept, too, to be used again after a restart. It holds what users "
            "wrote.",
            name="prefix_store_dir",
            unit="FOLDER",
            default="none",
        ),
    ] = None
    disk_mb: Annotated[
        int,
        Field(ge=1),
        Option(
            "Largest size of each replica's files in that folder.", name="prefix_store_disk_mb", unit="MIB"
        ),
    ] = 4096


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen where a request does not say."""

    temperature: Annotated[
        float | None,
        Field(ge=0, le=2),
        Option(
            "Temperature of requests that set none.",
            flags=("--temp",),
            unit="X",
            default="what NAME.gguf.json recommends, else 1",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        Field(ge=0, le=1),
        Option(
            "top_p of requests that set none.", unit="X", default="what NAME.gguf.json recommends, else 1"
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Field(ge=0, le=1_000_000),
        Option(
            "top_k of requests that set none. 0: off.",
            unit="N",
            default="what NAME.gguf.json recommends, else 0",
        ),
    ] = None
    min_p: Annotated[
        float | None,
        Field(ge=0, le=1),
        Option(
            "min_p of requests that set none. 0: off.",
            unit="X",
            default="what NAME.gguf.json recommends, else 0",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Speed. --tune finds good values of some of them; the others trade one wait for another."""

    batch_size: Annotated[
        int,
        Field(ge=0, le=65536),
        Option(
            "Most tokens handed to llama.cpp in one call.",
            flags=("-b",),
            unit="TOKENS",
            default="256 on the CPU, 2048 on a GPU",
        ),
    ] = 0
    ubatch_size: Annotated[
        int,
        Field(ge=0, le=65536),
        Option(
            "Most tokens that llama.cpp computes at once.",
            flags=("-ub",),
            unit="TOKENS",
            default="like --batch-size, on the CPU at most 512",
        ),
    ] = 0
    max_step_tokens: Annotated[
        int,
        Field(ge=0, le=65536),
        Option(
            "Most tokens of one step, of prompts and answers together.",
            unit="TOKENS",
            default="like --batch-size",
        ),
    ] = 0
    itl_target_s: Annotated[
        float,
        Field(gt=0, le=60),
        Option(
            "Time between two tokens to aim at. While answers are written, prompts are computed in pieces of "
            "about this length.",
            unit="SECONDS",
        ),
    ] = 0.1
    max_pause_s: Annotated[
        float | None,
        Field(ge=0, le=60),
        Option(
            "Longest time that many new prompts may stop the answers being written. 0: they take turns.",
            unit="SECONDS",
            default="0.5 on a GPU, else 0",
        ),
    ] = None
    speculative_tokens: Annotated[
        int,
        Field(ge=0, le=16),
        Option(
            "Most tokens guessed ahead from what a text repeats, where that was measured to save time. "
            "0: none.",
            unit="N",
        ),
    ] = 0
    cuda_graphs: Annotated[
        Literal["auto", "on", "off"],
        Option("Replay steps as CUDA graphs. auto: not where a graph could hang."),
    ] = "auto"
    repack: Annotated[
        Literal["auto", "on", "off"],
        Option("Reorder the weights for faster CPU kernels. The AMX kernels need this."),
    ] = "auto"
    mmap: Annotated[
        bool, Option("Map the model file into memory. Workers on the CPU then share its pages.")
    ] = True
    mlock: Annotated[bool, Option("Keep the model's pages in memory, never swapped out.")] = False
