"""What is measured, and how much each of it counts for what the server is used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Use = Literal["chat", "long", "throughput", "latency"]


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Decoding ``rows`` sequences of ``depth`` tokens each, or a prompt of ``prefill`` tokens."""

    depth: int
    rows: int = 0
    prefill: int = 0

    def __str__(self) -> str:
        return f"prompt of {self.prefill}" if self.prefill else f"{self.rows} x {self.depth}"

    @property
    def tokens(self) -> int:
        """That one step of it computes."""
        return self.prefill or self.rows


DEPTHS = (64, 600, 2000)
ROWS = (1, 8, 16)
PROMPTS = (32, 128, 512)

WEIGHTS: dict[Use, dict[Point, float]] = {
    # a conversation of 600 tokens with 1 to 8 users
    "chat": {Point(600, 1): 3, Point(600, 8): 3, Point(64, 8): 1, Point(600, prefill=128): 2},
    "long": {Point(2000, 1): 3, Point(2000, 8): 3, Point(600, prefill=512): 3},
    "throughput": {Point(600, 16): 4, Point(64, 16): 2, Point(600, prefill=512): 3},
    "latency": {Point(600, 1): 4, Point(64, 1): 2, Point(600, prefill=128): 2, Point(600, prefill=32): 1},
}
"""Shares of the time that matter; a step's time counts by its share, whatever it is in seconds."""


def quick_points(use: Use) -> dict[Point, float]:
    """Those that count most, at one depth: a few seconds."""
    weights = WEIGHTS[use]
    depth = max(weights, key=lambda point: weights[point]).depth
    return {point: weight for point, weight in weights.items() if point.depth == depth}


def weights_of(use: Use) -> dict[Point, float]:
    return WEIGHTS[use]


def full_points() -> list[Point]:
    """Everything that any use looks at, and the rest of the table."""
    return [
        *(Point(depth, rows) for depth in DEPTHS for rows in ROWS),
        *(Point(600, prefill=size) for size in PROMPTS),
    ]
