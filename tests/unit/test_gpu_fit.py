"""Slots come from the memory of the cards, and what cannot fit is refused with numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rllm.errors import StartError
from rllm.files.gguf_info import GgufInfo
from rllm.settings.load import load
from rllm.startup.gpu_fit import MOST_SLOTS, Card, compute_bytes, fit, gpu_bytes
from rllm.startup.preflight import Checked

GIB = 2**30
SHAPE = GgufInfo(
    path=Path("8b.gguf"),
    file_bytes=0,
    metadata={
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.vocab_size": 49152,
    },
    tensors=(),
)


def model(weight_gib: float = 4.3, name: str = "8b", **settings: object) -> Checked:
    """A Llama of 8 B parameters: 128 KiB of cache per token."""
    chosen = load({"gguf": (Path(f"{name}.gguf"),), **settings}).served()[0]
    return Checked(chosen, chosen.llama_options(8192), int(weight_gib * GIB), SHAPE)


def card(index: int = 0, free_gib: float = 79.0, total_gib: float = 79.6) -> Card:
    return Card(index, "NVIDIA H100 80GB HBM3", int(total_gib * GIB), int(free_gib * GIB))


def slots(*models: Checked, cards: list[Card]) -> list[int]:
    return [checked.options.slots for checked in fit(models, cards)]


def test_the_estimate_is_near_what_an_h100_showed_and_not_below() -> None:
    """0.85 to 0.99 GB beside weights and cache, with 64 slots of 1,024."""
    checked = model(slots=64, ctx_size=1024)
    rest = gpu_bytes(checked) - checked.weight_bytes - checked.kv_bytes
    assert checked.kv_bytes == 64 * 1024 * 128 * 1024
    assert 0.99e9 < rest < 1.3e9


def test_a_large_card_has_room_for_all_that_are_useful() -> None:
    assert slots(model(ctx_size=1024), cards=[card()]) == [MOST_SLOTS]


def test_on_a_small_card_they_are_as_many_as_fit() -> None:
    (found,) = slots(model(), cards=[card(free_gib=23.5, total_gib=24)])
    assert 28 <= found <= 34  # (21.6 - 4.3 - 1) / 0.5
    (more,) = fit([model(slots=found + 6)], [card()])
    assert gpu_bytes(more) > 0.9 * 24 * GIB


def test_the_share_of_the_card_is_kept() -> None:
    all_of_it, half = (
        slots(model(gpu_memory_utilization=share), cards=[card(total_gib=40, free_gib=40)])[0]
        for share in (1.0, 0.5)
    )
    assert half < all_of_it
    assert 4.3 + half * 0.5 < 20


def test_other_processes_take_away_from_it() -> None:
    (found,) = slots(model(), cards=[card(free_gib=10)])
    assert 4.3 + found * 0.5 + 1.1 > 9
    assert found < 10


def test_replicas_on_one_card_share_it() -> None:
    one = slots(model(), cards=[card(total_gib=24, free_gib=24)])[0]
    two = slots(model(replicas=2), cards=[card(total_gib=24, free_gib=24)])[0]
    assert two < one / 2
    apart = slots(model(replicas=2, devices="0,1"), cards=[card(0, 24, 24), card(1, 24, 24)])[0]
    assert apart == one


def test_a_model_over_two_cards_has_the_memory_of_both() -> None:
    big = model(30)
    with pytest.raises(StartError):
        fit([big], [card(0, 24, 24)])
    assert slots(big, cards=[card(0, 24, 24), card(1, 24, 24)])[0] > 10


def test_models_without_slots_get_equally_many_and_others_what_they_asked_for() -> None:
    found = slots(model(), model(15, "f16"), model(8, "q8", slots=4), cards=[card(total_gib=48, free_gib=48)])
    assert found[0] == found[1] > 1
    assert found[2] == 4


def test_other_options_bound_the_slots() -> None:
    assert slots(model(batch_size=16, ctx_size=512), cards=[card()]) == [16]


def test_a_pool_of_cells_does_not_grow_with_the_slots() -> None:
    assert slots(model(kv_cells=16384), cards=[card(total_gib=9, free_gib=9)]) == [MOST_SLOTS]


def test_without_flash_attention_the_scores_need_room() -> None:
    assert compute_bytes(model(flash_attn="off", slots=8)) > compute_bytes(model(slots=8)) + 2**27


@pytest.mark.parametrize(
    ("free", "settings", "message"),
    [
        (79.0, {"slots": 200}, r"--gpu-memory-utilization 0.9 allows 71\.64 GiB"),
        (10.0, {"slots": 64}, r"10\.00 GiB are free"),
        (3.0, {}, r"3\.00 GiB are free.* for 1 slots x 4096 tokens"),
        (30.0, {"slots": 40, "replicas": 2}, r"2 x \(weights 4\.30 GiB"),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers(
    free: float, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(StartError, match=message) as caught:
        fit([model(**settings)], [card(free_gib=free)])
    text = str(caught.value)
    assert "\n" not in text
    assert "GPU 0 (NVIDIA H100 80GB HBM3, 79.60 GiB)" in text
    assert all(part in text for part in ("needed", "KV cache", "--slots", "--allow-overcommit"))


def test_without_cards_nothing_is_changed() -> None:
    explicit = replace(model(slots=3))
    assert fit([explicit], []) == [explicit]
