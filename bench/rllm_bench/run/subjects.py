"""What a run records of a target: its model file, and its version."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rllm_bench.records.runs import Subject
from rllm_bench.targets.base import Target, subject


def describe(target: Target, sha256: Callable[[Path], str | None] | None) -> Subject:
    """``sha256`` is asked for the file with the weights, where there is one."""
    missing = target.missing()
    weights = _weights(target.model)
    return Subject(
        name=subject(target),
        engine=target.engine,
        variant=target.variant,
        model=str(target.model) if target.model else None,
        model_bytes=weights.stat().st_size if weights else None,
        model_type=_recorded_type(weights),
        model_sha256=sha256(weights) if weights and sha256 else None,
        type_shares=_type_shares(weights),
        version=target.version() if missing is None else None,
        missing=missing,
    )


def _weights(model: Path | None) -> Path | None:
    """The one file with the weights, of a GGUF or of a Hugging Face folder."""
    for path in (model, model / "model.safetensors") if model is not None else ():
        if path is not None and path.is_file():
            return path
    return None


def _recorded_type(weights: Path | None) -> str | None:
    """From the record that `rllm-models` leaves beside the files it makes."""
    record = weights.with_name(f"{weights.name}.json") if weights is not None else None
    if record is None or not record.is_file():
        return None
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        return None
    kind = found.get("type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else None


def _type_shares(weights: Path | None) -> dict[str, float]:
    """Of a GGUF: its name may say Q4_K_M where most rows could not be held in Q4_K."""
    if weights is None or weights.suffix != ".gguf":
        return {}
    from gguf import GGUFReader

    counts: Counter[str] = Counter()
    for tensor in GGUFReader(weights).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    total = counts.total()
    return {name: round(count / total, 4) for name, count in counts.most_common()}
