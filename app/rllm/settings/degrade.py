"""What the server gives up under load, and who answers instead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from rllm.settings.option import Option
from rllm.settings.values import Words


class Action(StrEnum):
    CAP = "cap"
    """Answers have at most ``max_tokens`` tokens."""
    SHED = "shed"
    """Requests with a priority value above ``priority`` (less important) are refused."""
    ROUTE = "route"
    """The model's smaller variant answers, unless its own level sends the request further down."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Rung:
    at: float
    """The load from which on it holds, in requests per slot. 1: all slots taken."""
    action: Action
    max_tokens: int = 0
    priority: int = 0

    @property
    def name(self) -> str:
        match self.action:
            case Action.CAP:
                return f"max_tokens<={self.max_tokens}"
            case Action.SHED:
                return f"priority<={self.priority}"
            case _:
                return self.action.value

    def __str__(self) -> str:
        """As `parse_rung` reads it."""
        number = {Action.CAP: f"={self.max_tokens}", Action.SHED: f"={self.priority}"}.get(self.action, "")
        return f"{self.at:g}:{self.action}{number}"


def parse_rung(text: str) -> Rung:
    """Read one rung: "1.5:cap=128", "2:shed=0", "3:route" or "4:refuse".

    Raises:
        ValueError: it is none of these.
    """
    at, _, what = text.partition(":")
    name, _, value = what.partition("=")
    try:
        load, action = float(at), Action(name)
        number = int(value) if action in (Action.CAP, Action.SHED) else 0
    except ValueError:
        raise ValueError(
            f"degrade {text!r} must be LOAD:cap=N, LOAD:shed=N, LOAD:route or LOAD:refuse"
        ) from None
    if not 0 < load < 1e6 or (action is Action.CAP and number < 1):
        raise ValueError(f"degrade {text!r}: the load and a cap must be above 0")
    if action is Action.CAP:
        return Rung(load, action, max_tokens=number)
    return Rung(load, action, priority=number)


def _as_rung(value: object) -> object:
    return parse_rung(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class DegradeSettings:
    """What the server gives up when it has more to do than it can."""

    rungs: Annotated[
        tuple[Annotated[Rung, BeforeValidator(_as_rung)], ...],
        Words,
        Option(
            "What to give up from a load on; the load is the number of requests per slot. cap=N: cut answers "
            "to N tokens. shed=N: refuse requests whose priority number is above N. route: let the model of "
            "--smaller answer. refuse: refuse all. May be repeated, or list several: "
            "1.5:cap=128,2:shed=0,3:route,4:refuse.",
            name="degrade",
            unit="LOAD:MEASURE",
            default="nothing",
        ),
    ] = ()
    hold_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Take one measure back after this long below its load.", name="degrade_hold_s", unit="SECONDS"
        ),
    ] = 5.0
    smaller: Annotated[
        tuple[str, ...],
        Words,
        Option(
            "MODEL=VARIANT: the variant answers for the model while 'route' holds. Both must be served here. "
            "May be repeated.",
            unit="MODEL=VARIANT",
        ),
    ] = ()
    fallback: Annotated[
        tuple[str, ...],
        Words,
        Option(
            "MODEL=OTHER: the other model answers while no worker of the model takes requests. May be "
            "repeated.",
            unit="MODEL=OTHER",
        ),
    ] = ()
