"""From a configuration to the cells of a run. Decides everything; starts nothing."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench.load.workload import longest
from rllm_bench.records.cells import CellSpec, Load, WorkloadSpec
from rllm_bench.records.runs import RunRecord, Settings, Subject

DEFAULT_SLOS = {"server": {"ttft": 2000.0, "tpot": 100.0}, "interactive": {"ttft": 500.0, "tpot": 30.0}}
"""MLPerf's two for llama3.1-8b, in ms."""
_CTX_STEP = 256


class MatrixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A matrix run, as `--config matrix.toml` writes it. `preset` fills in what is left out."""

    name: str = ""
    preset: str = "quick"
    targets: list[str] = msgspec.field(default_factory=lambda: ["rllm"])
    """`engine` for every variant, or `engine:variant`."""
    variants: list[str] = []
    """Names of models/NAME.gguf; empty: q4, q8, f16, as far as they are there."""
    concurrency: list[int] = []
    rates: list[float] = []
    """Open loop, requests per second; measured after the closed-loop cells."""
    arrival: str = "poisson"
    burstiness: float = 1.0
    ramp_to: float | None = None
    max_in_flight: int | None = None
    """Open loop: further requests wait in the client, and their wait counts."""
    open_duration_s: float = 60.0
    prompt_tokens: list[int] = []
    output_tokens: list[int] = []
    workload: str = "unique"
    prefix_tokens: int = 0
    prefix_groups: int = 1
    turns: int = 1
    prompts_file: str | None = None
    requests_per_user: int | None = None
    min_requests: int | None = None
    min_duration_s: float = 0.0
    max_duration_s: float | None = None
    repeats: int | None = None
    warmups: int | None = None
    seed: int = 1
    slots: int | None = None
    ctx_per_slot: int | None = None
    threads: int | None = None
    prefix_cache: bool = True
    extra: dict[str, list[str]] = {}
    slos: dict[str, dict[str, float]] = {}
    price_per_hour: float | None = None
    machine_kind: str | None = None


class PlanError(Exception):
    """The configuration asks for something that does not exist or does not go together."""


def presets() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text())
    return found


def complete(config: MatrixConfig) -> MatrixConfig:
    """With the preset's values where the configuration has none."""
    known = presets()
    if config.preset not in known:
        raise PlanError(f"no preset {config.preset!r}; there are {', '.join(known)}")
    missing = {
        key: value for key, value in known[config.preset].items() if getattr(config, key) in (None, [])
    }
    if config.rates:
        missing.pop("concurrency", None)  # only rates were asked for
    return msgspec.structs.replace(config, **missing)


def load_config(path: Path, overrides: dict[str, Any]) -> MatrixConfig:
    """The file's values, and the command line's over them."""
    values = tomllib.loads(path.read_text())
    try:
        return msgspec.convert({**values, **overrides}, MatrixConfig)
    except msgspec.ValidationError as error:
        raise PlanError(f"{path}: {error}") from error


def settings(config: MatrixConfig) -> Settings:
    """One server configuration for the whole run: room for its largest cell."""
    needed = max((longest(work) for work in workloads(config)), default=_CTX_STEP)
    per_slot = config.ctx_per_slot or -(-(needed + 1) // _CTX_STEP) * _CTX_STEP
    if per_slot < needed:
        raise PlanError(f"ctx_per_slot={per_slot} is less than the {needed} tokens of the largest request")
    return Settings(
        slots=config.slots or max([*config.concurrency, 8 if config.rates else 1]),
        ctx_per_slot=per_slot,
        threads=config.threads,
        prefix_cache=config.prefix_cache,
        extra=config.extra,
    )


def workloads(config: MatrixConfig) -> Iterator[WorkloadSpec]:
    sha = None
    if config.workload == "file":
        if config.prompts_file is None:
            raise PlanError("workload = 'file' needs prompts_file")
        sha = hashlib.sha256(Path(config.prompts_file).read_bytes()).hexdigest()
    for prompt in config.prompt_tokens:
        for output in config.output_tokens:
            if config.workload == "shared-prefix" and not 0 < config.prefix_tokens < prompt:
                raise PlanError(f"shared-prefix needs 0 < prefix_tokens < prompt_tokens={prompt}")
            fields = {
                "kind": config.workload,
                "prompt_tokens": prompt,
                "output_tokens": output,
                "prefix_tokens": config.prefix_tokens if config.workload == "shared-prefix" else 0,
                "prefix_groups": config.prefix_groups,
                "turns": config.turns if config.workload == "multi-turn" else 1,
                "path": config.prompts_file,
                "file_sha256": sha,
            }
            yield msgspec.convert(fields, WorkloadSpec)


def loads(config: MatrixConfig) -> Iterator[Load]:
    for users in config.concurrency:
        yield Load(mode="closed", concurrency=users)
    for rate in config.rates:
        fields = {
            "mode": "open",
            "rate": rate,
            "concurrency": config.max_in_flight,
            "arrival": config.arrival,
            "burstiness": config.burstiness,
            "ramp_to": config.ramp_to,
        }
        yield msgspec.convert(fields, Load)


def cells(config: MatrixConfig, subjects: Sequence[Subject]) -> list[CellSpec]:
    """In the order of measuring: repeats outermost, subjects forth and back, so that a machine that
    changes over the hours changes for all of them."""
    present = [subject for subject in subjects if subject.missing is None]
    planned = []
    for repeat in range(config.repeats or 1):
        ordered = present if repeat % 2 == 0 else present[::-1]
        for subject in ordered:
            planned += [
                _cell(config, subject.name, work, load, repeat)
                for work in workloads(config)
                for load in loads(config)
            ]
    return planned


def _cell(config: MatrixConfig, subject: str, work: WorkloadSpec, load: Load, repeat: int) -> CellSpec:
    draft = CellSpec(subject=subject, workload=work, load=load, num_requests=1)
    users = load.concurrency or 1
    if load.mode == "open":
        mean_rate = ((load.rate or 0) + (load.ramp_to or load.rate or 0)) / 2
        count = max(1, round(mean_rate * config.open_duration_s))
    else:
        count = max(config.min_requests or 1, (config.requests_per_user or 1) * users)
    return msgspec.structs.replace(
        draft,
        workload=msgspec.structs.replace(work, seed=cell_seed(config.seed, draft.group, repeat)),
        num_requests=count,
        num_warmups=config.warmups or 0,
        min_duration_s=config.min_duration_s,
        max_duration_s=config.max_duration_s if load.mode == "closed" else None,
        repeat=repeat,
        intervals=(config.repeats or 1) >= 3,
    )


def cell_seed(seed: int, group: str, repeat: int) -> int:
    """The same for every subject, another one for every cell and repeat: nobody meets a prompt twice."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{group}/{repeat}".encode()).digest()[:6])


def estimate_s(spec: CellSpec, model_bytes: int | None) -> float:
    """A rough guess for progress bars and dry runs: a machine that streams 10 GB/s of weights, batches
    up to a factor of 2.5, and prefills six times as fast as it decodes one stream."""
    single = min(120.0, 10e9 / max(model_bytes or 1_000_000_000, 1))
    users = spec.load.concurrency or 8
    decode = single * min(2.5, users**0.5)
    work = spec.num_requests * (
        spec.workload.prompt_tokens / (6 * single) + spec.workload.output_tokens / decode
    )
    if spec.load.mode == "open" and spec.load.rate:
        work = max(work, spec.num_requests / spec.load.rate)
    elif spec.max_duration_s is not None:
        work = min(work, spec.max_duration_s + 5)
    return 1.0 + float(max(work, spec.min_duration_s))


def total_estimate_s(run: RunRecord) -> float:
    sizes = {subject.name: subject.model_bytes for subject in run.subjects}
    return sum(estimate_s(spec, sizes.get(spec.subject)) for spec in run.cells)
