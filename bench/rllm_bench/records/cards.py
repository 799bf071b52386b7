"""Which of the machine's GPUs the servers under test were told to use."""

from __future__ import annotations

import os


def first_card() -> int:
    """NVML's index of the first of CUDA_VISIBLE_DEVICES; 0 where that says nothing."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def visible_cards(count: int) -> list[int]:
    """Those of ``count`` that CUDA_VISIBLE_DEVICES leaves; all where it says nothing that is a number."""
    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    chosen = [int(part) for part in named if part.isdecimal() and int(part) < count]
    return chosen or list(range(count))
