"""What the Grafana dashboard shows: rows of panels, each a title, a unit and its queries."""

from __future__ import annotations

from dataclasses import dataclass

SERVER = 'job=~"$job",instance=~"$server"'
MODEL = f'{SERVER},model=~"$model"'
WORKER = f'{MODEL},exported_instance=~"$worker"'


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """Grafana's name of it."""
    queries: dict[str, str]
    """Legend -> PromQL."""
    text: str = ""
    """Shown at the panel's (i)."""
    stacked: bool = False
    top: float | None = None
    """Upper end of the axis."""


def rate(metric: str, selector: str, by: str = "", *, function: str = "rate", **labels: str) -> str:
    chosen = ",".join([selector, *(f'{name}=~"{value}"' for name, value in labels.items())])
    return f"sum by ({by}) ({function}({metric}{{{chosen}}}[$__rate_interval]))"


def quantiles(metric: str, selector: str, by: str) -> dict[str, str]:
    inner = rate(f"{metric}_bucket", selector, f"{by}, le")
    name = f"{{{{{by}}}}}"
    return {f"p{round(100 * q)} {name}": f"histogram_quantile({q}, {inner})" for q in (0.5, 0.95, 0.99)}


def mean(metric: str, selector: str, by: str, **labels: str) -> str:
    return (
        f"{rate(metric + '_sum', selector, by, **labels)} / {rate(metric + '_count', selector, by, **labels)}"
    )


def gauge(metric: str, selector: str, by: str) -> str:
    return f"sum by ({by}) ({metric}{{{selector}}})"


BY_WORKER = "{{exported_instance}}"
GENERATION = "/v1/(chat/)?completions"

ROWS: dict[str, list[Panel]] = {
    "Traffic": [
        Panel(
            "Requests by status",
            "reqps",
            {"{{status}}": rate("rllm_requests_total", MODEL, "status", route=GENERATION)},
            "Of the generating routes, when they are over. 499: the client went away.",
            stacked=True,
        ),
        Panel(
            "Sequences by finish reason",
            "reqps",
            {"{{reason}}": rate("rllm_sequences_finished_total", MODEL, "reason")},
            stacked=True,
        ),
        Panel(
            "Tokens",
            "short",
            {
                "generated {{model}}": rate("rllm_decode_tokens_total", WORKER, "model"),
                "prompt, computed {{model}}": rate("rllm_prefill_tokens_total", WORKER, "model"),
                "prompt, found resident {{model}}": rate("rllm_prefix_hit_tokens_total", WORKER, "model"),
            },
            "Tokens a second.",
        ),
        Panel(
            "In flight",
            "short",
            {BY_WORKER: gauge("rllm_sequences_in_flight", WORKER, "exported_instance")},
            "Given to a worker and not over: running or waiting there.",
        ),
        Panel("Prompt length", "short", quantiles("rllm_prompt_length_tokens", MODEL, "model"), "Tokens."),
        Panel("Output length", "short", quantiles("rllm_output_length_tokens", MODEL, "model"), "Tokens."),
    ],
    "Latency": [
        Panel(
            "Time to first token",
            "s",
            quantiles("rllm_time_to_first_token_seconds", MODEL, "model"),
            "From acceptance: queue and prefill.",
        ),
        Panel(
            "Inter-token latency",
            "s",
            quantiles("rllm_inter_token_latency_seconds", WORKER, "model"),
            "Pauses between the tokens of one sequence.",
        ),
        Panel("Time per output token", "s", quantiles("rllm_time_per_output_token_seconds", MODEL, "model")),
        Panel("End to end", "s", quantiles("rllm_e2e_latency_seconds", MODEL, "model")),
        Panel("Queue time", "s", quantiles("rllm_queue_time_seconds", MODEL, "model"), "Waiting for a slot."),
        Panel(
            "Where the time goes",
            "s",
            {
                f"{name} {{{{model}}}}": mean(f"rllm_{name}_time_seconds", MODEL, "model")
                for name in ("queue", "prefill", "decode")
            },
            "Means per sequence; the three add up to its life in the worker.",
            stacked=True,
        ),
    ],
    "Scheduler": [
        Panel(
            "Decode batch",
            "short",
            {BY_WORKER: mean("rllm_decode_batch_size", WORKER, "exported_instance")},
            "Mean number of sequences that decode in one step.",
        ),
        Panel(
            "Slots and queue",
            "short",
            {
                f"running {BY_WORKER}": gauge("rllm_slots_used", WORKER, "exported_instance"),
                f"slots {BY_WORKER}": gauge("rllm_slots", WORKER, "exported_instance"),
                f"waiting {BY_WORKER}": gauge("rllm_requests_waiting", WORKER, "exported_instance"),
            },
            "Waiting beside free slots: for KV cells, or for the prompts before them.",
        ),
        Panel(
            "Oldest in the queue",
            "s",
            {BY_WORKER: f"max by (exported_instance) (rllm_queue_oldest_seconds{{{WORKER}}})"},
            "How long who has no slot yet has waited; true at the scrape, also while a worker stands still.",
        ),
        Panel(
            "Prompt tokens in the queue",
            "short",
            {BY_WORKER: gauge("rllm_queue_prompt_tokens", WORKER, "exported_instance")},
        ),
        Panel(
            "Prefix store",
            "bytes",
            {
                f"{{{{where}}}} {BY_WORKER}": gauge(
                    "rllm_prefix_store_bytes", WORKER, "exported_instance, where"
                )
            },
            "Prefixes that were moved out of the KV cache and can be brought back.",
        ),
        Panel(
            "What steps compute",
            "percentunit",
            {
                f"{BY_WORKER} {{{{kind}}}}": rate(
                    "rllm_step_seconds_sum", WORKER, "exported_instance, kind", kind=".+"
                )
            },
            "Share of wall time by kind of step; what is missing to 100 % of a worker is idle.",
            stacked=True,
        ),
        Panel(
            "Step time, decode",
            "s",
            {BY_WORKER: mean("rllm_step_seconds", WORKER, "exported_instance", kind="decode|mixed")},
            "One line far above the others: a slow worker (RUNBOOK.md, RllmWorkerSlow).",
        ),
        Panel(
            "Step time, prefill",
            "s",
            {BY_WORKER: mean("rllm_step_seconds", WORKER, "exported_instance", kind="prefill")},
        ),
        Panel(
            "Phases of a step",
            "percentunit",
            {
                f"{BY_WORKER} {{{{phase}}}}": rate(
                    "rllm_step_phase_seconds_total", WORKER, "exported_instance, phase"
                )
            },
            "Share of wall time. plan and commit are Python, execute and sample llama.cpp.",
            stacked=True,
        ),
        Panel(
            "KV cells in use",
            "percentunit",
            {
                BY_WORKER: f"{gauge('rllm_kv_cells_used', WORKER, 'exported_instance')} / "
                f"{gauge('rllm_kv_cells', WORKER, 'exported_instance')}"
            },
            "Idle prefixes included: full is normal while nobody is preempted or waits for cells.",
            top=1,
        ),
        Panel(
            "Prefix hits",
            "percentunit",
            {
                "{{model}}": f"{rate('rllm_cached_prompt_tokens_total', MODEL, 'model')} / "
                f"{rate('rllm_prompt_tokens_total', MODEL, 'model')}"
            },
            "Share of prompt tokens that were resident.",
            top=1,
        ),
        Panel(
            "Preemptions and evictions",
            "short",
            {
                f"preempted sequences/s {BY_WORKER}": rate(
                    "rllm_preemptions_total", WORKER, "exported_instance"
                ),
                f"evicted cells/s {BY_WORKER}": rate(
                    "rllm_evicted_tokens_total", WORKER, "exported_instance"
                ),
            },
            "Evicted are idle prefixes, which is normal; preempted are running sequences, which is not.",
        ),
        Panel(
            "Steps without cells for who is next",
            "percentunit",
            {
                BY_WORKER: f"{rate('rllm_kv_blocked_steps_total', WORKER, 'exported_instance')} / "
                f"{rate('rllm_step_seconds_count', WORKER, 'exported_instance')}"
            },
            "A slot is free and the prompt does not fit the cache (RUNBOOK.md, RllmKvFull).",
            top=1,
        ),
        Panel(
            "Slow samples",
            "percentunit",
            {
                BY_WORKER: f"{rate('rllm_slow_samples_total', WORKER, 'exported_instance')} / "
                f"{rate('rllm_decode_tokens_total', WORKER, 'exported_instance')}"
            },
            "Share of tokens drawn on a path that visits the whole vocabulary.",
        ),
        Panel(
            "Graphs reused",
            "percentunit",
            {
                BY_WORKER: f"{rate('rllm_graphs_reused_total', WORKER, 'exported_instance')} / "
                f"{rate('rllm_step_seconds_count', WORKER, 'exported_instance')}"
            },
            "Per step.",
        ),
        Panel(
            "Repeated llama_decode calls",
            "short",
            {BY_WORKER: rate("rllm_decode_retries_total", WORKER, "exported_instance")},
        ),
    ],
    "Reliability": [
        Panel(
            "Workers by state",
            "short",
            {"{{model}} {{state}}": gauge("rllm_instance_state", WORKER, "model, state")},
        ),
        Panel(
            "Breakers that are not closed",
            "short",
            {BY_WORKER: gauge("rllm_breaker_state", f'{WORKER},state!="closed"', "exported_instance")},
        ),
        Panel(
            "Restarts and stalls",
            "short",
            {
                f"restarts {BY_WORKER}": rate(
                    "rllm_worker_restarts_total", WORKER, "exported_instance", function="increase"
                ),
                f"stalls {BY_WORKER}": rate(
                    "rllm_worker_stalls_total", WORKER, "exported_instance", function="increase"
                ),
            },
        ),
        Panel(
            "Rejections by reason",
            "reqps",
            {"{{reason}} {{bound}}": rate("rllm_rejections_total", MODEL, "reason, bound")},
            stacked=True,
        ),
        Panel(
            "Refused for a key's limit",
            "reqps",
            {"{{key}}": rate("rllm_rate_limited_total", SERVER, "key")},
            stacked=True,
        ),
        Panel(
            "Clients that went away",
            "reqps",
            {"{{cause}}": rate("rllm_cancellations_total", MODEL, "cause")},
            stacked=True,
        ),
        Panel(
            "Errors by code",
            "reqps",
            {"{{code}}": rate("rllm_request_errors_total", SERVER, "code")},
            stacked=True,
        ),
        Panel(
            "Time limits passed",
            "reqps",
            {"{{limit}}": rate("rllm_timeouts_total", MODEL, "limit")},
            stacked=True,
        ),
        Panel(
            "Degradation level",
            "short",
            {"{{model}}": f"max by (model) (rllm_degradation_level{{{MODEL}}})"},
            "Rung of the ladder; 0 is normal service.",
        ),
        Panel(
            "Answered by another model",
            "reqps",
            {"{{model}} → {{to}}, {{reason}}": rate("rllm_rerouted_total", MODEL, "model, to, reason")},
        ),
        Panel(
            "Sequences whose worker was lost",
            "reqps",
            {"{{outcome}}": rate("rllm_sequences_lost_total", WORKER, "outcome")},
            "retried: nobody noticed. failed: a stream broke with worker_lost.",
        ),
    ],
    "Resources": [
        Panel(
            "CPU",
            "percentunit",
            {"{{process}}": rate("rllm_process_cpu_seconds_total", SERVER, "process")},
            "Of one core.",
        ),
        Panel(
            "Memory", "bytes", {"{{process}}": gauge("rllm_process_resident_memory_bytes", SERVER, "process")}
        ),
        Panel(
            "File descriptors and threads",
            "short",
            {
                "fds {{process}}": gauge("rllm_process_open_fds", SERVER, "process"),
                "threads {{process}}": gauge("rllm_process_threads", SERVER, "process"),
            },
        ),
        Panel(
            "GPU memory",
            "bytes",
            {
                "used {{gpu}}": gauge("rllm_gpu_memory_used_bytes", SERVER, "gpu"),
                "total {{gpu}}": gauge("rllm_gpu_memory_bytes", SERVER, "gpu"),
            },
            "Empty without a GPU, like the next two.",
        ),
        Panel(
            "GPU utilization",
            "percentunit",
            {"{{gpu}}": gauge("rllm_gpu_utilization_ratio", SERVER, "gpu")},
            top=1,
        ),
        Panel(
            "GPU power and temperature",
            "short",
            {
                "watts {{gpu}}": gauge("rllm_gpu_power_watts", SERVER, "gpu"),
                "degrees {{gpu}}": gauge("rllm_gpu_temperature_celsius", SERVER, "gpu"),
            },
        ),
    ],
}
