"""The text format of /metrics, read just far enough: names, labels dropped, values added up."""

from __future__ import annotations

import math

from rllm_bench.load.direct import open_url


def parse(text: str) -> dict[str, float]:
    """Samples by name. Label sets are added up, which is right for counters and for gauges of one model;
    histogram buckets are left out."""
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        value = rest.rpartition("}")[2] if "{" in line else rest
        name = name.strip()
        if name.endswith("_bucket") or name.endswith("_created"):
            continue
        try:
            number = float(value.split()[0])
        except (ValueError, IndexError):
            continue
        if math.isfinite(number):
            samples[name] = samples.get(name, 0.0) + number
    return samples


def scrape(base_url: str, timeout_s: float = 1.0) -> dict[str, float]:
    """Empty where the server has no /metrics or does not answer in time."""
    try:
        with open_url(f"{base_url.rstrip('/')}/metrics", timeout_s) as response:
            return parse(response.read().decode("utf-8", "replace"))
    except (OSError, ValueError):
        return {}
