"""Choice, greedy agreement, problems and data files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rllm_bench.quality import choice, greedy, problems
from rllm_bench.quality.datasets import DataError, EvaluationData, Pair
from tests.bench.quality.fakes import FakeModel


def nothing(_done: int, _total: int) -> None:
    pass


def test_a_sentence_scores_the_same_alone_and_among_others(pool: ThreadPoolExecutor) -> None:
    sentences = [list(b"one"), list(b"a longer sentence than sixteen"), list(b"x")]
    together = choice.sentence_scores(FakeModel(), sentences, pool)
    alone = [choice.sentence_scores(FakeModel(), [sentence], pool)[0] for sentence in sentences]
    assert together == pytest.approx(alone, rel=1e-5)


def test_the_more_probable_sentence_is_chosen(pool: ThreadPoolExecutor) -> None:
    model = FakeModel()
    texts = [bytes([65 + i, 66 + i]).decode() for i in range(10)]
    scores = choice.sentence_scores(
        FakeModel(num_sequences=10), [list(text.encode()) for text in texts], pool
    )
    pairs = [Pair("p", texts[i], texts[i + 1]) for i in range(9)]
    assert choice.choose(model, pairs, pool, nothing) == [scores[i] > scores[i + 1] for i in range(9)]


def test_flips_count_both_directions() -> None:
    found = choice.flips([True, True, False, False, True], [True, False, True, True, True])
    assert (found.right, found.right_reference, found.lost, found.gained) == (3, 4, 2, 1)


def test_agreement_is_where_the_variants_own_text_parts() -> None:
    """Reading the reference's text finds the same place as writing and comparing."""
    base, variant = FakeModel(), FakeModel(0.4)
    prompts = [list(f"prompt {i}".encode()) for i in range(6)]
    texts = greedy.continuations(base, prompts, 20, nothing)
    own = [tuple(step.token for step in variant.greedy([prompt], 20)[0]) for prompt in prompts]
    wanted = [
        next((i for i, (a, b) in enumerate(zip(text.tokens, mine, strict=False)) if a != b), None)
        for text, mine in zip(texts, own, strict=True)
    ]
    assert list(greedy.agreement(variant, texts, nothing).first_difference) == wanted
    assert any(index is not None for index in wanted)


def test_median_agreement_counts_whole_texts() -> None:
    assert greedy.Agreement((None, 3, 1), (10, 10, 10)).median_agreed == 3
    assert greedy.Agreement((None, None, 1), (10, 8, 10)).median_agreed == 8


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 + 4 = 7\n#### 1,234", "1234"),
        ("it is -5.50 dollars", "-5.5"),
        ("none", None),
        ("12 then 13.0", "13"),
    ],
)
def test_the_answer_of_a_problem(text: str, answer: str | None) -> None:
    assert problems.answer_of(text) == answer


def test_packaged_data_is_complete() -> None:
    data = EvaluationData()
    assert len(data.pairs()) == 1340
    assert len({pair.paradigm for pair in data.pairs()}) == 67
    assert len(data.problems()) == 1319
    assert data.text().lstrip().startswith("= Robert Boulter =")


@pytest.mark.parametrize("line", ["not json", "[1]", '{"good": "x"}', '{"good": "x", "bad": 3}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"good": "a", "bad": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"p\.jsonl line 2"):
        EvaluationData({"pairs": tmp_path / "p.jsonl"}).pairs()
