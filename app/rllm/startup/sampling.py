"""Which sampling holds where a request says nothing: the model's recommendation, or the operator's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rllm.engine.types import SamplingDefaults
from rllm.errors import StartError
from rllm.files.regular_file import open_regular

_MOST_SIDECAR_BYTES = 2**20


def sampling_defaults(gguf: Path, given: Mapping[str, float | None]) -> SamplingDefaults:
    """The operator's values, then "sampling" in the sidecar (NAME.gguf.json), then OpenAI's.

    Raises:
        StartError: the sidecar's recommendation makes no sense.
    """
    named = {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert({**_recommended(gguf), **named}, SamplingDefaults, strict=False)
    except msgspec.ValidationError as error:
        raise StartError(f"{gguf}.json: sampling: {error}") from None


def _recommended(gguf: Path) -> dict[str, float]:
    """A sidecar that is absent or is not ours recommends nothing."""
    try:
        with open_regular(gguf.with_name(f"{gguf.name}.json")) as file:
            sidecar = json.loads(file.read(_MOST_SIDECAR_BYTES))
        found = sidecar.get("sampling") or {}
        return {str(name): value for name, value in found.items() if math.isfinite(value)}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return {}
