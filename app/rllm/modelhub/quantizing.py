"""Quantize a GGUF file, in a process of its own: llama.cpp logs to standard error and may abort."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rllm.errors import HubError
from rllm.files.gguf_info import GgufInfo, read_gguf, read_model, shard_paths
from rllm.modelhub import provenance
from rllm.modelhub.child import events_of
from rllm.modelhub.files import move_into_place, part_of, space_for
from rllm.modelhub.importance import check_importance
from rllm.modelhub.progress import progress
from rllm.modelhub.provenance import Ancestor, Provenance
from rllm.modelhub.quant_types import (
    QUANT_TYPES,
    TENSOR_TYPE_NUMBERS,
    fallen_back,
    file_type_name,
    quantized_types,
)


@dataclass(frozen=True)
class QuantizeJob:
    source: Path
    target: Path
    type: str
    allow_requantize: bool = False
    threads: int = 0
    """0: all cores."""
    licence: str | None = None
    imatrix: Path | None = None
    """An importance matrix, as `importance.importance_matrix` or llama-imatrix writes it."""
    tensor_types: tuple[tuple[str, str], ...] = ()
    """Regular expression of tensor names, and the type that they get; the first that fits counts."""


def describe_imatrix(path: Path) -> str:
    return f"{path.name} sha256 {provenance.sha256_of(path)}"


def quantize(job: QuantizeJob) -> Provenance:
    """Write ``job.target`` and its sidecar. Whatever ends this early leaves no target and no broken one.

    The caller holds the folder (``files.only_one``).
    """
    parts = shard_paths(job.source)
    job = replace(job, source=parts[0])
    info = read_model(job.source)
    lossy = quantized_types(info)
    _refuse(job, info, lossy)
    _refuse_recipe(job, info)
    digest = provenance.checksum_of_model(parts)
    part = part_of(job.target)
    try:
        header = info.file_bytes - sum(tensor.num_bytes for tensor in info.tensors)
        with space_for(part, header + _expected_bytes(job, part)):
            _run(job, part, num_tensors=len(info.tensors))
        record = _record(
            job, part, Ancestor(file=job.source.name, type=file_type_name(info), sha256=digest), lossy
        )
        provenance.save(job.target, record)
        move_into_place(part, job.target)
    finally:
        part.unlink(missing_ok=True)
    return record


def _refuse(job: QuantizeJob, info: GgufInfo, lossy: list[str]) -> None:
    if job.type not in QUANT_TYPES:
        raise HubError(f"unknown type {job.type!r}; known are: {', '.join(QUANT_TYPES)}")
    if info.num_shards > len(shard_paths(job.source)):
        raise HubError(f"{job.source}: one of {info.num_shards} parts, and not named like one")
    if not info.tensors:
        raise HubError(f"{job.source}: holds no tensors, only a vocabulary")
    if job.target.exists() and any(job.target.samefile(part) for part in shard_paths(job.source)):
        raise HubError(f"{job.target}: source and target are the same file")
    if lossy and not job.allow_requantize:
        raise HubError(
            f"{job.source}: already quantized ({', '.join(lossy)}); quantizing it again adds to its losses. "
            "Start from F16, or say --allow-requantize"
        )


def _refuse_recipe(job: QuantizeJob, info: GgufInfo) -> None:
    """llama.cpp ignores a pattern that fits nothing, and a matrix of another model, in silence."""
    for pattern, type_name in job.tensor_types:
        if type_name not in TENSOR_TYPE_NUMBERS:
            raise HubError(f"--tensor-type {pattern}={type_name}: known are {', '.join(TENSOR_TYPE_NUMBERS)}")
        try:
            fits = any(re.search(pattern, tensor.name) for tensor in info.tensors)
        except re.error as exc:
            raise HubError(f"--tensor-type {pattern}: not a regular expression ({exc})") from None
        if not fits:
            raise HubError(f"--tensor-type {pattern}: no tensor of {job.source.name} has such a name")
    if job.imatrix is not None:
        check_importance(job.imatrix, info)


def _record(job: QuantizeJob, part: Path, source: Ancestor, lossy: list[str]) -> Provenance:
    earlier = provenance.load(job.source)
    stat = part.stat()
    return Provenance(
        file=job.target.name,
        sha256=provenance.sha256_of(part),
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        made_by="quantized",
        type=job.type,
        date=provenance.now(),
        tools=provenance.tool_versions(),
        licence=job.licence or (earlier.licence if earlier else None),
        sources=(source, *(earlier.sources if earlier else ())),
        imatrix=describe_imatrix(job.imatrix) if job.imatrix else None,
        tensor_types=tuple(f"{pattern}={name}" for pattern, name in job.tensor_types),
        requantized=bool(lossy) or (earlier is not None and earlier.requantized),
        num_fallbacks=len(fallen_back(job.type, read_gguf(part).tensors)),
    )


def _expected_bytes(job: QuantizeJob, part: Path) -> int:
    sizes = [event["num_bytes"] for event in _events(job, part, dry_run=True) if "num_bytes" in event]
    return int(sizes[-1]) if sizes else 0


def _run(job: QuantizeJob, part: Path, *, num_tensors: int) -> None:
    label = f"quantizing {job.source.name} to {job.type}"
    with progress(label, num_tensors, in_bytes=False) as advance:
        for event in _events(job, part, dry_run=False):
            if "tensor" in event:
                advance(int(event["tensor"]))


def _events(job: QuantizeJob, part: Path, *, dry_run: bool) -> Iterator[dict[str, int]]:
    """What the child reports, line by line; raises if it fails."""
    order = {
        "source": str(job.source),
        "target": str(part),
        "ftype": QUANT_TYPES[job.type],
        "threads": job.threads,
        "allow_requantize": job.allow_requantize,
        "dry_run": dry_run,
        "imatrix": str(job.imatrix) if job.imatrix else None,
        "tensor_types": [(pattern, TENSOR_TYPE_NUMBERS[name]) for pattern, name in job.tensor_types],
    }
    failed = f"{job.source}: could not be quantized to {job.type}"
    yield from events_of("rllm.backends.llama.quantize", order, failed)
