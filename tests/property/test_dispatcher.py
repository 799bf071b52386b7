"""The dispatcher and its guess at what is resident."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rllm.serving.dispatcher import MIN_SHARE, Candidate, choose
from rllm.serving.prefixes import BLOCK, PrefixMap, block_keys

candidates = st.lists(
    st.builds(
        Candidate,
        outstanding_tokens=st.integers(0, 300),
        free_slots=st.integers(-2, 2),
        resident_tokens=st.sampled_from([0, 32, 64, 96]),
    ),
    min_size=1,
    max_size=4,
)
prompts = st.lists(st.lists(st.integers(0, 1), max_size=4 * BLOCK).map(tuple), min_size=1, max_size=8)


@given(candidates, st.integers(0, 200))
def test_nobody_waits_for_a_slot_while_another_instance_has_one_free(
    them: list[Candidate], slack: int
) -> None:
    chosen = them[choose(them, 96, slack)]
    assert chosen.free_slots > 0 or all(c.free_slots <= 0 for c in them)


@given(candidates, st.integers(0, 200))
def test_affinity_never_costs_more_than_it_saves_and_the_slack(them: list[Candidate], slack: int) -> None:
    chosen = them[choose(them, 96, slack)]
    equals = [c for c in them if (c.free_slots > 0) == (chosen.free_slots > 0)]
    least = min(c.outstanding_tokens for c in equals)
    assert chosen.outstanding_tokens <= least + slack + chosen.resident_tokens


@given(candidates)
def test_in_balance_the_longest_resident_prefix_wins(them: list[Candidate]) -> None:
    level = [Candidate(100, 1, c.resident_tokens) for c in them]
    chosen = level[choose(level, 96, 0)]
    longest = max(c.resident_tokens for c in level)
    assert chosen.resident_tokens == longest or longest < MIN_SHARE * 96


@given(candidates)
def test_without_anything_resident_the_least_loaded_wins(them: list[Candidate]) -> None:
    cold = [Candidate(c.outstanding_tokens, 1, 0) for c in them]
    chosen = cold[choose(cold, 96, 50)]
    assert chosen.outstanding_tokens == min(c.outstanding_tokens for c in cold)


@given(prompts, prompts)
def test_a_match_is_the_longest_shared_prefix_in_whole_blocks(
    known: list[tuple[int, ...]], asked: list[tuple[int, ...]]
) -> None:
    seen = PrefixMap(1000)
    for prompt in known:
        seen.add(block_keys(prompt))
    for prompt in asked:
        shared = max(_shared(prompt, other) for other in known)
        assert seen.match(block_keys(prompt)) == shared // BLOCK * BLOCK
        assert seen.match(block_keys(prompt, salt="other tenant")) == 0


@given(prompts, st.integers(0, 5))
def test_the_map_stays_within_its_bound_and_keeps_beginnings_longest(
    known: list[tuple[int, ...]], bound: int
) -> None:
    seen = PrefixMap(bound)
    for prompt in known:
        seen.add(block_keys(prompt))
        assert len(seen) <= bound
        assert seen.match(block_keys(prompt)) == min(len(prompt) // BLOCK, bound) * BLOCK


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
