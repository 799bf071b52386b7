"""The vectorised kernels against llama-perplexity's loops, written out one token at a time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm_bench.quality import rows


def reference_encode(logits: np.ndarray) -> np.ndarray:
    """llama-perplexity's log_softmax for the base file, in double."""
    top = logits.max()
    low = max(logits.min(), top - 16)
    log_sum = np.log(np.exp(logits.astype(np.float64) - top).sum())
    scale = np.float32((top - low) / 65535)
    codes = np.where(logits > low, np.rint((logits - low) / scale), 0) if scale else np.zeros_like(logits)
    out = np.zeros(rows.row_width(len(logits)), np.uint16)
    out[:4].view(np.float32)[:] = scale, low - top - log_sum
    out[4 : 4 + len(logits)] = codes
    return out


def reference_score(logits: np.ndarray, base: np.ndarray, token: int) -> dict[str, float]:
    scale, low = (float(x) for x in base[:4].view(np.float32))
    ln_base = [scale * int(code) + low for code in base[4 : 4 + len(logits)]]
    log_sum = float(logits.max()) + np.log(np.exp(logits.astype(np.float64) - logits.max()).sum())
    nll, nll_base = log_sum - float(logits[token]), -ln_base[token]
    return {
        "nll": nll,
        "nll_base": nll_base,
        "kld": sum(
            np.exp(b) * (b - float(x) + log_sum) for b, x in zip(ln_base, logits, strict=True) if b > -16
        ),
        "p_diff": np.exp(-nll) - np.exp(-nll_base),
        "same_top": float(np.argmax(logits) == np.argmax(ln_base)),
    }


def some_rows(seed: int, count: int, vocab: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (count, vocab)).astype(np.float32), rng.integers(0, vocab, count)


@given(
    seed=st.integers(0, 2**16),
    count=st.integers(1, 9),
    vocab=st.integers(2, 301),
    spread=st.sampled_from([0.0, 1, 8]),
)
def test_encoding_is_that_of_llama_perplexity(seed: int, count: int, vocab: int, spread: float) -> None:
    logits, tokens = some_rows(seed, count, vocab, spread)
    encoded = rows.encode(logits, tokens)
    for ours, row in zip(encoded.codes, logits, strict=True):
        wanted = reference_encode(row)
        np.testing.assert_allclose(ours[:4].view(np.float32), wanted[:4].view(np.float32), rtol=1e-5)
        assert np.abs(ours[4:].astype(int) - wanted[4:]).max() <= 1


@given(seed=st.integers(0, 2**16), vocab=st.integers(2, 301), spread=st.sampled_from([0.5, 3, 12]))
def test_scores_are_those_of_llama_perplexity(seed: int, vocab: int, spread: float) -> None:
    logits, tokens = some_rows(seed, 6, vocab, spread)
    base = rows.encode(logits + some_rows(seed + 1, 6, vocab, spread / 10)[0], tokens).codes
    scores = rows.score(logits, base, tokens)
    for i, got in enumerate(scores):
        for name, value in reference_score(logits[i], base[i], tokens[i]).items():
            assert got[name] == pytest.approx(value, rel=1e-4, abs=2e-5), name


def test_threads_do_not_change_the_result() -> None:
    logits, tokens = some_rows(3, 37, 500, 3)
    base = rows.encode(logits[::-1].copy(), tokens).codes
    with ThreadPoolExecutor(3) as pool:
        assert (rows.score(logits, base, tokens, pool) == rows.score(logits, base, tokens)).all()
        assert (rows.encode(logits, tokens, pool).codes == rows.encode(logits, tokens).codes).all()


def test_a_distribution_does_not_diverge_from_itself() -> None:
    logits, tokens = some_rows(4, 20, 1000, 2)
    scores = rows.score(logits, rows.encode(logits, tokens).codes, tokens)
    assert np.abs(scores["kld"]).max() < 1e-4
    assert scores["same_top"].all()


def test_token_nll_agrees_with_encode() -> None:
    logits, tokens = some_rows(5, 10, 64, 2)
    nll, top = rows.token_nll(logits, tokens)
    encoded = rows.encode(logits, tokens)
    np.testing.assert_allclose(nll, encoded.nll, rtol=1e-6)
    assert (top == encoded.top).all()


def test_a_base_of_another_vocabulary_is_refused() -> None:
    logits, tokens = some_rows(6, 2, 10, 1)
    with pytest.raises(ValueError, match="reference rows"):
        rows.score(logits, rows.encode(logits[:, :8].copy(), tokens % 8).codes, tokens)
