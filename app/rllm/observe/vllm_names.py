"""The common ones of our metrics once more, under the names and labels that vLLM gives them.

For dashboards that exist. Only what has a counterpart: nothing is estimated, and where vLLM means something
slightly different, the help text says what is shown. Histograms keep our own, finer buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.samples import Sample

Labels = Mapping[str, str]


def _only_buckets(labels: Labels) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name == "le"}


def _finished(labels: Labels) -> dict[str, str]:
    return {"finished_reason": {"cancelled": "abort"}.get(labels["reason"], labels["reason"])}


def _rejected(labels: Labels) -> dict[str, str] | None:
    reasons = {"queue_requests": "max_num_queued_reqs", "queue_tokens": "max_num_queued_tokens"}
    reason = reasons.get(labels["bound"])
    return None if reason is None else {"reason": reason}


@dataclass(frozen=True, slots=True)
class _Name:
    """``labels``: those that stay, beside model_name and engine; None leaves the sample out."""

    ours: str
    theirs: str
    labels: Callable[[Labels], dict[str, str] | None] = _only_buckets


_NAMES = (
    _Name("rllm_requests_running", "num_requests_running"),
    _Name("rllm_queue_depth", "num_requests_waiting"),
    _Name("rllm_prompt_tokens", "prompt_tokens"),
    _Name("rllm_generated_tokens", "generation_tokens"),
    _Name("rllm_prompt_tokens", "prefix_cache_queries"),
    _Name("rllm_cached_prompt_tokens", "prefix_cache_hits"),
    _Name("rllm_cached_prompt_tokens", "prompt_tokens_cached"),
    _Name("rllm_preemptions", "num_preemptions"),
    _Name("rllm_sequences_finished", "request_success", _finished),
    _Name("rllm_rejections", "admission_rejections", _rejected),
    _Name("rllm_time_to_first_token_seconds", "time_to_first_token_seconds"),
    _Name("rllm_inter_token_latency_seconds", "inter_token_latency_seconds"),
    _Name("rllm_inter_token_latency_seconds", "time_per_output_token_seconds"),  # its name in older vLLM
    _Name("rllm_time_per_output_token_seconds", "request_time_per_output_token_seconds"),
    _Name("rllm_e2e_latency_seconds", "e2e_request_latency_seconds"),
    _Name("rllm_queue_time_seconds", "request_queue_time_seconds"),
    _Name("rllm_prefill_time_seconds", "request_prefill_time_seconds"),
    _Name("rllm_decode_time_seconds", "request_decode_time_seconds"),
    _Name("rllm_prompt_length_tokens", "request_prompt_tokens"),
    _Name("rllm_output_length_tokens", "request_generation_tokens"),
    _Name("rllm_step_tokens", "iteration_tokens_total"),
)


def vllm_families(families: Iterable[Metric]) -> Iterator[Metric]:
    ours = {family.name: family for family in families}
    for name in _NAMES:
        yield _renamed(ours[name.ours], name)
    yield _cache_usage(ours["rllm_kv_cells_used"], ours["rllm_kv_cells"])


def _renamed(family: Metric, name: _Name) -> Metric:
    theirs = Metric(f"vllm:{name.theirs}", f"{family.documentation} The same as {name.ours}.", family.type)
    for sample in family.samples:
        suffix = sample.name.removeprefix(family.name)
        kept = None if suffix == "_created" else name.labels(sample.labels)
        if kept is not None:
            labels = {**_place(sample.labels), **kept}
            theirs.samples.append(Sample(theirs.name + suffix, labels, sample.value))
    return theirs


def _cache_usage(used: Metric, cells: Metric) -> Metric:
    """vLLM does not count what is only kept for reuse; here it is part of what is used."""
    usage = GaugeMetricFamily(
        "vllm:kv_cache_usage_perc", "Share of KV cells that hold a token, resident prefixes included; 0 to 1."
    )
    totals = {tuple(sorted(sample.labels.items())): sample.value for sample in cells.samples}
    for sample in used.samples:
        if total := totals.get(tuple(sorted(sample.labels.items()))):
            usage.samples.append(Sample(usage.name, _place(sample.labels), sample.value / total))
    return usage


def _place(labels: Labels) -> dict[str, str]:
    """vLLM numbers its engines; our instances are called MODEL-0, MODEL-1."""
    place = {"model_name": labels["model"]}
    if "instance" in labels:
        place["engine"] = labels["instance"].removeprefix(f"{labels['model']}-")
    return place
