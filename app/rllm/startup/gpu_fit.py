"""How many slots the cards hold, and a refusal with numbers where they hold none. Pure arithmetic.

What an instance takes beside its file and its cache was compared with an H100 (8B shape, 64 slots of 1,024,
after load): 0.85 GB with F16, 0.88 with Q8_0, 0.99 with Q4_K_M by NVML, 1.23 by this. What llama.cpp really
allocates is in the banner and in rllm_buffer_bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from rllm.backends.options import GPU_BATCH, GPU_UBATCH
from rllm.errors import StartError
from rllm.startup.preflight import Checked, gib

MOST_SLOTS = 64
"""Where nobody says --slots. More of them decode more together and each more slowly; 64 were measured."""
_CONTEXT_BYTES = 700 * 2**20
"""Of a process on each of its cards: CUDA's context, cuBLAS's workspaces, llama.cpp's pool."""


@dataclass(frozen=True, slots=True)
class Card:
    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class _Share:
    """What the instances of one model take on one card."""

    checked: Checked
    num_instances: int
    bytes: int


def fit(models: Sequence[Checked], cards: Sequence[Card]) -> list[Checked]:
    """The models with slots: those that were given, or as many as fit, for all models alike.

    Raises:
        StartError: they do not fit; with the numbers and what to change.
    """
    tried, problem = list(models), _first_problem(models, cards)
    if all(checked.model.engine.slots for checked in models):
        if problem is not None:
            raise StartError(problem)
        return tried
    for slots in range(MOST_SLOTS, 0, -1):
        tried = [_with_slots(checked, slots) for checked in models]
        if (problem := _first_problem(tried, cards)) is None:
            return tried
    raise StartError(problem or "")


def _with_slots(checked: Checked, slots: int) -> Checked:
    """Unless the operator has said how many."""
    if checked.model.engine.slots:
        return checked
    slots = min(slots, checked.model.most_slots)
    return replace(checked, options=msgspec.structs.replace(checked.options, slots=slots))


def gpu_bytes(checked: Checked, num_cards: int = 1) -> int:
    """Of one instance, on each of the cards that its layers are spread over."""
    whole = checked.weight_bytes + checked.kv_bytes + compute_bytes(checked)
    return whole // num_cards + _CONTEXT_BYTES


def compute_bytes(checked: Checked) -> int:
    """Activations of a micro-batch and rows of logits; the attention mask; without flash attention
    the scores of every head, too."""
    options, info = checked.options, checked.info
    unified = options.kv == "unified" or options.kv_cells > 0
    seen = (options.kv_cells or options.slots * options.ctx_per_slot) if unified else options.ctx_per_slot
    ubatch_size = options.ubatch_size or min(options.batch_size or GPU_BATCH, GPU_UBATCH)
    mask = 6 * ubatch_size * seen
    scores = 0
    if options.flash_attn == "off":
        scores = 4 * info.number("attention.head_count") * ubatch_size * seen
    return checked.compute_bytes_of(ubatch_size) + mask + scores


def _first_problem(models: Sequence[Checked], cards: Sequence[Card]) -> str | None:
    for card in cards:
        shares = list(_shares(models, cards, card))
        for share in shares:
            ratio = share.checked.model.engine.gpu_memory_utilization
            if share.bytes > ratio * card.total_bytes:
                allowed = f"--gpu-memory-utilization {ratio:g} allows {gib(int(ratio * card.total_bytes))}"
                return _refusal(card, [share], allowed)
        if shares and sum(share.bytes for share in shares) > card.free_bytes:
            return _refusal(card, shares, f"{gib(card.free_bytes)} are free")
    return None


def _shares(models: Sequence[Checked], cards: Sequence[Card], card: Card) -> Iterator[_Share]:
    for checked in models:
        number = needed = 0
        for own in _placements(checked, cards):
            if card in own:
                number += 1
                needed += gpu_bytes(checked, len(own))
        if number:
            yield _Share(checked, number, needed)


def _placements(checked: Checked, cards: Sequence[Card]) -> list[list[Card]]:
    """The cards of every replica: the next of --devices, or all."""
    names = [name.strip() for name in checked.model.engine.devices.split(",") if name.strip()]
    if not names:
        return [list(cards)] * checked.model.engine.replicas
    return [
        [card for card in cards if str(card.index) == names[replica % len(names)]] or list(cards)
        for replica in range(checked.model.engine.replicas)
    ]


def _refusal(card: Card, shares: Sequence[_Share], limit: str) -> str:
    needed = sum(share.bytes for share in shares)
    return (
        f"would not fit on GPU {card.index} ({card.name}, {gib(card.total_bytes)}): {gib(needed)} needed, "
        f"{limit}. {'; '.join(map(_explained, shares))}. Lower --slots, --ctx-size or --replicas, choose a "
        "smaller --cache-type-k/v or model, or start anyway with --allow-overcommit"
    )


def _explained(share: _Share) -> str:
    checked, options = share.checked, share.checked.options
    times = f"{share.num_instances} x " if share.num_instances > 1 else ""
    rest = compute_bytes(checked) + _CONTEXT_BYTES
    cache = f"{gib(checked.kv_bytes)} for {options.slots} slots x {options.ctx_per_slot} tokens"
    weights = gib(checked.weight_bytes)
    return f"{checked.model.id}: {times}(weights {weights}, KV cache {cache}, other {gib(rest)})"
