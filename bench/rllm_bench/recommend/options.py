"""What may be chosen: every variant under every load that was measured, with its quality. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from rllm_bench.figures.cost import per_1k_tokens


@dataclass(frozen=True, slots=True)
class Quality:
    """None: not measured."""

    mean_kld: float | None = None
    same_top: float | None = None
    ppl_ratio: float | None = None
    passes_gate: bool | None = None
    is_reference: bool = False


@dataclass(frozen=True, slots=True)
class Floor:
    """The least quality that is accepted; what is None is not asked for."""

    max_mean_kld: float | None = None
    min_same_top: float | None = None
    max_ppl_ratio: float | None = None
    gate: bool = False

    def refusal(self, quality: Quality | None) -> str | None:
        """Why ``quality`` is not enough; None if it is. The reference is always enough."""
        if quality is not None and quality.is_reference:
            return None
        if self == Floor():
            return None
        if quality is None:
            return "its quality was not measured"
        for name, value, limit, higher_is_better in (
            ("mean KLD", quality.mean_kld, self.max_mean_kld, False),
            ("same top token", quality.same_top, self.min_same_top, True),
            ("perplexity ratio", quality.ppl_ratio, self.max_ppl_ratio, False),
        ):
            if limit is None:
                continue
            if value is None:
                return f"its {name} was not measured"
            if value < limit if higher_is_better else value > limit:
                return f"{name} {value:.4g} is {'below' if higher_is_better else 'above'} {limit:g}"
        if self.gate and not quality.passes_gate:
            return "it fails the gate"
        return None


@dataclass(frozen=True, slots=True)
class Option:
    """One subject under one load, as measured. Rates are per second."""

    subject: str
    engine: str
    variant: str
    workload: str
    load: str
    users: int
    slots: int
    output_tps: float
    goodput_rps: float
    attained: float
    """Share of the requests that met every limit of the goal."""
    p95_ms: dict[str, float]
    """95th percentile of each latency the goal limits: ttft, tpot, e2el."""
    memory_mb: float | None
    price_per_hour: float | None
    quality: Quality | None

    @property
    def good_tps(self) -> float:
        """Output tokens per second of requests that met the goal."""
        return self.output_tps * self.attained

    @property
    def cost_per_1k(self) -> float | None:
        """Of tokens delivered within the goal: late ones are paid for, not counted."""
        if self.price_per_hour is None or self.good_tps <= 0:
            return None
        return per_1k_tokens(self.price_per_hour, self.good_tps)
