"""What may be chosen for a model on a machine: the rule first, then what differs from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import msgspec

from rllm.backends.options import LlamaOptions
from rllm.startup.profiles import is_open

Value = str | int


@dataclass(frozen=True, slots=True)
class Candidate:
    """Options that differ from the rule's."""

    changes: tuple[tuple[str, Value], ...] = ()

    def apply(self, options: LlamaOptions) -> LlamaOptions:
        return msgspec.structs.replace(options, **dict(self.changes))

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.changes) or "the rule"


RULE = Candidate()


def quick_candidates(options: LlamaOptions, *, physical: int, logical: int, on_gpu: bool) -> list[Candidate]:
    """The two choices that were seen to matter most: flash attention, and threads where there are
    hyper-threads."""
    return _product(options, {"flash_attn": ("off",), "threads": () if on_gpu else _more(physical, logical)})


def full_candidates(options: LlamaOptions, *, physical: int, logical: int, on_gpu: bool) -> list[Candidate]:
    """Every combination of what is still open in ``options``."""
    if on_gpu:
        return _product(
            options, {"flash_attn": ("off",), "cuda_graphs": ("off",), "ubatch_size": (512, 1024)}
        )
    return _product(
        options,
        {
            "flash_attn": ("off",),
            "repack": ("off",),
            "ubatch_size": (128,),
            "threads": _more(physical, logical),
        },
    )


def _more(physical: int, logical: int) -> tuple[int, ...]:
    """Between the physical cores, which are the rule, and all that the system shows."""
    between = (physical + logical) // 2
    return tuple(sorted({between, logical} - {physical}))


def _product(options: LlamaOptions, values: dict[str, Sequence[Value]]) -> list[Candidate]:
    """The rule, then by how much they differ from it. What was chosen or is known is no choice."""
    needs_flash = options.cache_type_v not in {"f32", "f16", "bf16"}
    open_ = {
        name: several
        for name, several in values.items()
        if is_open(options, name) and not (name == "flash_attn" and needs_flash)
    }
    choices = [[None, *((name, value) for value in several)] for name, several in open_.items()]
    found = [Candidate(tuple(each for each in chosen if each is not None)) for chosen in product(*choices)]
    return sorted(found, key=lambda candidate: len(candidate.changes))
