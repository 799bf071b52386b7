"""From a configuration to the cells of a run. Decides everything; starts nothing."""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench import scenarios
from rllm_bench.records.cells import CellSpec, Load, Settings, WorkloadSpec
from rllm_bench.records.runs import Goal, Hosting, Kind, Subject

DEFAULT_SLOS = {"server": {"ttft": 2000.0, "tpot": 100.0}, "interactive": {"ttft": 500.0, "tpot": 30.0}}
"""MLPerf's two for llama3.1-8b, in ms."""
_CTX_STEP = 256
_WARM_FEWEST, _WARM_MOST, _WARM_AGAIN = 4, 16, 2
"""Requests that warm up a server, by its users, and a further cell of one that has worked already."""


class PlanError(Exception):
    """The configuration asks for something that does not exist or does not go together."""


class MatrixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Targets under loads, as `--config matrix.toml` or a part of a study writes it. `preset` fills in what
    is left out."""

    name: str = ""
    what: str = ""
    preset: str = "quick"
    targets: list[str] = msgspec.field(default_factory=lambda: ["rllm"])
    """`engine` for every variant, or `engine:variant`; options of its own may follow."""
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
    """The scenario."""
    prefix_tokens: int = 0
    prefix_groups: int = 1
    warm_prefix: bool = False
    turns: int = 1
    prompts_file: str | None = None
    requests_per_user: int | None = None
    min_requests: int | None = None
    min_duration_s: float = 0.0
    max_duration_s: float | None = None
    request_timeout_s: float = 600.0
    repeats: int | None = None
    warmups: int | None = None
    seed: int = 1
    slots: int | None = None
    ctx_per_slot: int | None = None
    threads: int | None = None
    prefix_cache: bool = True
    body: dict[str, Any] = {}
    """Further fields of every request."""
    extra: dict[str, list[str]] = {}
    slos: dict[str, dict[str, float]] = {}
    price_per_hour: float | None = None
    machine_kind: str | None = None


@dataclass(frozen=True)
class Plan:
    """Parts that one run measures, each of its targets under its loads."""

    parts: Sequence[MatrixConfig]
    kind: Kind = "matrix"
    hosting: Hosting = "alone"
    name: str = ""
    question: str = ""
    goals: Sequence[Goal] = ()

    @property
    def first(self) -> MatrixConfig:
        return self.parts[0]


# --- where plans come from ----------------------------------------------------------------------------


def matrix(config: MatrixConfig) -> Plan:
    return Plan([complete(config)], name=config.name)


def versus(names: Sequence[str], given: Mapping[str, Any], pairs: int) -> Plan:
    """Each scenario with its usual loads, or what is ``given`` instead. Those that need no servers of their
    own share the same ones."""
    parts = []
    for name in names:
        usual = scenarios.find(name).usual
        own = {"preset": "standard", "min_requests": 1, **usual, **given}
        fields = {**own, "workload": name, "name": name, "repeats": pairs}
        parts.append(complete(msgspec.convert(fields, MatrixConfig)))
    return Plan(_alike(parts), kind="versus", hosting="together")


def _alike(parts: Sequence[MatrixConfig]) -> list[MatrixConfig]:
    """With slots and context that are enough for all; long contexts and full caches are left apart."""
    apart = [part for part in parts if _is_apart(part)]
    common = [settings(part) for part in parts if part not in apart]
    slots = max((one.slots for one in common), default=1)
    ctx = max((one.ctx_per_slot for one in common), default=_CTX_STEP)
    return [
        part
        if part in apart
        else msgspec.structs.replace(part, slots=part.slots or slots, ctx_per_slot=part.ctx_per_slot or ctx)
        for part in parts
    ]


def _is_apart(part: MatrixConfig) -> bool:
    return scenarios.find(part.workload).cells_share is not None or max(part.prompt_tokens) > 4096


def study(path: Path, given: Mapping[str, Any], only: Sequence[str] = ()) -> Plan:
    """A TOML file: keys of `MatrixConfig` for all parts, and `[[part]]` with those of each; `question`,
    `hosting`, and `[[goal]]`. Most important first: what does not fit into the time is what comes last.
    ``only``: names of parts, which must be in it; the plan is that of all.

    Raises:
        PlanError: no such part, or a key or value that a plan does not have.
    """
    values = tomllib.loads(path.read_text())
    try:
        goals = msgspec.convert(values.pop("goal", []), list[Goal])
        hosting = msgspec.convert(values.pop("hosting", "kept"), Hosting)
        question = str(values.pop("question", ""))
        tables = values.pop("part", [{}])
        common = {"preset": "standard", **values}
        parts = [_part({"name": path.stem, **common, **table, **given}) for table in tables]
    except msgspec.ValidationError as error:
        raise PlanError(f"{path}: {error}") from error
    if unknown := set(only) - {part.name for part in parts}:
        names = ", ".join(part.name for part in parts)
        raise PlanError(f"{path} has no part {', '.join(sorted(unknown))}; there is {names}")
    return Plan(parts, "study", hosting, path.stem, question, goals)


def _part(table: Mapping[str, Any]) -> MatrixConfig:
    usual = scenarios.find(table["workload"]).usual if "workload" in table else {}
    return complete(msgspec.convert({**usual, **table}, MatrixConfig))


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


# --- what a part asks for -----------------------------------------------------------------------------


def settings(config: MatrixConfig) -> Settings:
    """One server configuration for the whole part: room for its largest cell."""
    scenario = scenarios.find(config.workload)
    longest = max((scenario.longest(work) for work in workloads(config)), default=_CTX_STEP)
    per_slot = config.ctx_per_slot or -(-(longest + 1) // _CTX_STEP) * _CTX_STEP
    if per_slot < longest:
        raise PlanError(f"ctx_per_slot={per_slot} is less than the {longest} tokens of the largest request")
    slots = config.slots or max([*config.concurrency, 8 if config.rates else 1])
    cells = None
    if scenario.cells_share is not None:
        cells = round(max([*config.concurrency, 1]) * longest * scenario.cells_share)
    return Settings(
        slots=slots,
        ctx_per_slot=per_slot,
        threads=config.threads,
        prefix_cache=config.prefix_cache,
        kv_cells=cells,
        extra=config.extra,
    )


def workloads(config: MatrixConfig) -> Iterator[WorkloadSpec]:
    scenario, sha = scenarios.find(config.workload), None
    if config.prompts_file is not None:
        sha = hashlib.sha256(Path(config.prompts_file).read_bytes()).hexdigest()
    for prompt in config.prompt_tokens:
        for output in config.output_tokens:
            spec = WorkloadSpec(
                kind=config.workload,
                prompt_tokens=prompt,
                output_tokens=output,
                prefix_tokens=config.prefix_tokens,
                prefix_groups=config.prefix_groups,
                warm_prefix=config.warm_prefix,
                turns=config.turns,
                path=config.prompts_file,
                file_sha256=sha,
            )
            if problem := scenario.problem(spec):
                raise PlanError(f"{config.workload} {problem}")
            yield spec


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


# --- its cells ----------------------------------------------------------------------------------------


def cells(plan: Plan, subjects: Sequence[Sequence[Subject]]) -> list[CellSpec]:
    """In the order of measuring. ``subjects``: those of each part.

    Servers alone: repeats outermost, subjects forth and back, so that a machine that changes over the hours
    changes for all of them. Together: under each load all subjects in turn, in an order that is shuffled;
    pairs outermost where servers are started for each of them, else parts.
    """
    planned = [
        spec for part, known in zip(plan.parts, subjects, strict=True) for spec in _of_part(plan, part, known)
    ]
    if plan.hosting == "together":
        planned.sort(key=lambda spec: spec.repeat)
    return planned if plan.hosting == "alone" else list(_warmed(plan, planned))


def _of_part(plan: Plan, config: MatrixConfig, subjects: Sequence[Subject]) -> Iterator[CellSpec]:
    present = [subject.name for subject in subjects if subject.missing is None]
    own = settings(config)
    given = None if own == settings(plan.first) else own
    for repeat in range(config.repeats or 1):
        asked = [(work, load) for work in workloads(config) for load in loads(config)]
        if plan.hosting == "alone":
            ordered = present if repeat % 2 == 0 else present[::-1]
            turns = [(name, *one) for name in ordered for one in asked]
        else:
            turns = [
                (name, *one)
                for one in asked
                for name in _shuffled(present, (config.seed, config.name, *one, repeat))
            ]
        for name, work, load in turns:
            yield _cell(plan, config, name, work, load, repeat, given)


def _shuffled(names: Sequence[str], seed: object) -> list[str]:
    order = list(names)
    random.Random(repr(seed)).shuffle(order)
    return order


def _cell(
    plan: Plan,
    config: MatrixConfig,
    subject: str,
    work: WorkloadSpec,
    load: Load,
    repeat: int,
    own: Settings | None,
) -> CellSpec:
    draft = CellSpec(subject=subject, workload=work, load=load, num_requests=1)
    users = load.concurrency or 1
    if load.mode == "open":
        mean_rate = ((load.rate or 0) + (load.ramp_to or load.rate or 0)) / 2
        count = max(1, round(mean_rate * config.open_duration_s))
    else:
        count = max(config.min_requests or 1, (config.requests_per_user or 1) * users)
    part = "" if plan.kind == "matrix" else config.name
    seed = cell_seed(config.seed, part, 0) if part else config.seed
    return msgspec.structs.replace(
        draft,
        workload=msgspec.structs.replace(work, seed=cell_seed(seed, draft.group, repeat)),
        num_requests=count,
        num_warmups=config.warmups or 0,
        min_duration_s=config.min_duration_s,
        max_duration_s=config.max_duration_s if load.mode == "closed" else None,
        repeat=repeat,
        intervals=(config.repeats or 1) >= 3,
        timeout_s=config.request_timeout_s,
        part=part,
        body=config.body,
        settings=own,
    )


def _warmed(plan: Plan, planned: Sequence[CellSpec]) -> Iterator[CellSpec]:
    """The first cell of a server warms it up as a whole; a few requests do for the next."""
    seen: set[object] = set()
    for spec in planned:
        started = (spec.subject, repr(spec.settings), spec.repeat if plan.hosting == "together" else 0)
        users = min(max(spec.load.concurrency or 8, _WARM_FEWEST), _WARM_MOST)
        yield msgspec.structs.replace(spec, num_warmups=_WARM_AGAIN if started in seen else users)
        seen.add(started)


def cell_seed(seed: int, group: str, repeat: int) -> int:
    """The same for every subject, another one for every cell and repeat: nobody meets a prompt twice."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{group}/{repeat}".encode()).digest()[:6])
