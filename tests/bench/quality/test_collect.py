"""A whole run over fake models: what it finds, and that nothing is computed twice."""

import pytest

from rllm_bench.quality.model import Shape
from tests.bench.quality.conftest import MakeCollector, subject


def test_the_same_model_is_within_the_noise(collector: MakeCollector) -> None:
    run = collector(subject("base"))
    result, floor = run.variant(subject("copy")), run.floor()
    assert result.divergence is not None
    assert result.divergence.kld_mean.value <= floor.mean_kld * 1.0001
    assert result.ppl_ratio is not None
    assert result.ppl_ratio.value == pytest.approx(1)
    assert result.greedy is not None
    assert result.greedy.exact == 4
    assert result.pairs is not None
    assert result.pairs.flipped == 0


def test_more_noise_is_more_divergence(collector: MakeCollector) -> None:
    run = collector(subject("base"))
    found = [run.variant(subject(f"n{noise}", noise)) for noise in (0.05, 0.3, 1.0)]
    klds = [result.divergence.kld_mean.value for result in found if result.divergence]
    assert klds == sorted(klds)
    assert klds[0] * 10 < klds[2]
    assert found[2].greedy is not None
    assert found[2].greedy.exact < 4


def test_a_second_run_loads_the_variant_no_more(collector: MakeCollector) -> None:
    first = collector(subject("base")).variant(subject("v", 0.1))
    opened: list[Shape] = []
    second = collector(subject("base")).variant(subject("v", 0.1, opened=opened))
    assert opened == []
    assert second.divergence == first.divergence
    assert second.scoring_tps is None


def test_another_reference_makes_new_records(collector: MakeCollector) -> None:
    first = collector(subject("base")).variant(subject("v", 0.1))
    second = collector(subject("other", 0.5)).variant(subject("v", 0.1))
    assert first.divergence != second.divergence


def test_stepwise_and_whole_windows_are_the_same_distributions(collector: MakeCollector) -> None:
    """The fake has no kernels that change with the batch, so its batching floor is that of storage."""
    floor = collector(subject("base")).floor()
    assert floor.batching is not None
    assert floor.batching.kld_mean.value < 1e-4
    assert floor.pairs is not None
    assert floor.pairs.flipped == 0
