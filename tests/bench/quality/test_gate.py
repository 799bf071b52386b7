"""The gate, and the report that explains it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rllm_bench.quality import words
from rllm_bench.quality.choice import Flips
from rllm_bench.quality.gate import judge, load_limits
from rllm_bench.quality.importance import gains
from rllm_bench.quality.metrics import Estimate
from rllm_bench.quality.report import render
from rllm_bench.quality.results import QualityRun, Settings
from rllm_bench.quality.store import QualityStore, load_run
from tests.bench.quality.conftest import MakeCollector, subject

LIMITS = load_limits()


def test_a_quiet_variant_passes_and_a_noisy_one_fails(collector: MakeCollector) -> None:
    run = collector(subject("base"))
    assert judge(run.variant(subject("quiet", 0.01)), LIMITS).passed
    verdict = judge(run.variant(subject("noisy", 0.5)), LIMITS)
    assert not verdict.passed
    assert "mean KL divergence" in {check.what for check in verdict.failures}


def test_fewer_bits_do_not_earn_a_pass(collector: MakeCollector) -> None:
    result = collector(subject("base")).variant(subject("v", 0.8, "Q2_K"))
    verdict = judge(result, LIMITS)
    assert verdict.limits == "under 4 bits"
    assert not verdict.passed


def test_what_was_not_measured_does_not_pass(collector: MakeCollector) -> None:
    from msgspec.structs import replace

    result = replace(collector(subject("base")).variant(subject("quiet", 0.01)), pairs=None)
    (failed,) = judge(result, LIMITS).failures
    assert words.failure(failed) == "p of the flips was not measured"


def test_a_misspelled_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('[[class]]\nname = "x"\nfile_types = ["*"]\nmax_kld = 1.0\n')
    with pytest.raises(ValueError, match="max_kld"):
        load_limits(tmp_path / "t.toml")


def test_a_file_type_that_no_class_covers_is_refused(tmp_path: Path, collector: MakeCollector) -> None:
    (tmp_path / "t.toml").write_text('[[class]]\nname = "x"\nfile_types = ["F16"]\n')
    result = collector(subject("base")).variant(subject("v"))
    with pytest.raises(ValueError, match="no class"):
        judge(result, load_limits(tmp_path / "t.toml"))


def test_the_report_says_it_in_words(tmp_path: Path, collector: MakeCollector) -> None:
    made = collector(subject("base", file_type="F16"))
    run = QualityRun(
        created=datetime.now(UTC).isoformat(), settings=Settings(), data={}, environment={},
        reference=made.reference_result(), floor=made.floor(),
        variants=[made.variant(subject("quiet")), made.variant(subject("noisy", 0.5))],
    )  # fmt: skip
    QualityStore(tmp_path).save(run)
    text = render(load_run(tmp_path), LIMITS, None)
    assert "**quiet** passes" in text
    assert "call it the same model" in text
    assert "**noisy** fails “near-lossless, small model”: mean KL divergence" in text
    assert "noise: batch 1 against 32" in text
    assert "Q8_0 100%" in text


def test_a_matrix_is_compared_with_its_absence(tmp_path: Path, collector: MakeCollector) -> None:
    """Of the same type only, token by token."""
    made = collector(subject("base", file_type="F16"))
    subjects = [
        subject("plain", 0.3, "Q4_K_M"),
        subject("other", 0.3, "Q2_K"),
        subject("made", 0.2, "Q4_K_M", imatrix="text.gguf"),
    ]
    found = gains([one.file for one in subjects], lambda place: made.scores(subjects[place])[0])
    ((gain),) = found
    assert (gain.without, gain.matrix, gain.verdict) == ("plain", "made", "better")
    results = [made.variant(one) for one in subjects]
    kld = [r.divergence.kld_mean.value for r in results if r.divergence]
    assert gain.kld.value == pytest.approx(kld[0] - kld[2])
    run = QualityRun(
        created="", settings=Settings(), data={}, environment={}, reference=made.reference_result(),
        floor=made.floor(), variants=results, matrices=found,
    )  # fmt: skip
    QualityStore(tmp_path).save(run)
    assert "| Q4_K_M | plain | made |" in render(load_run(tmp_path), LIMITS, None)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.914, "1 token in 12 changes"), (1.0, "no most likely token changes"), (0.3, "70% of the")],
)
def test_tokens_that_change_in_words(share: float, said: str) -> None:
    assert said in words.changed_tokens(Estimate(share, 0.0))


def test_flips_that_cancel_are_still_told() -> None:
    said = words.flips_in_words(Flips(total=1000, right=700, right_reference=700, lost=50, gained=50))
    assert "100 of 1000 choices flip (1 in 10)" in said
    assert "no significant change" in said
