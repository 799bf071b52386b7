"""One request on its way through the engine: its state, its tokens, its text, its clock readings."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from enum import Enum

from rllm.engine.lookup import Lookup
from rllm.engine.text import Piece, TextAssembler
from rllm.engine.types import EngineRequest, Event, FinishReason, Timings, TokenLogprob, Usage


class State(Enum):
    WAITING = "waiting"
    """Holds no cells. A preempted request waits too; it keeps its sequence id and its sampler."""
    PREFILLING = "prefilling"
    DECODING = "decoding"
    FINISHED = "finished"


_MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.PREFILLING, State.FINISHED}),
    State.PREFILLING: frozenset({State.DECODING, State.WAITING, State.FINISHED}),
    State.DECODING: frozenset({State.PREFILLING, State.WAITING, State.FINISHED}),
    State.FINISHED: frozenset(),
}


@dataclass(slots=True)
class Clock:
    """When what happened first, on the engine's clock."""

    arrived_at: float
    admitted_at: float | None = None
    first_token_at: float | None = None

    def timings(self, now: float) -> Timings:
        admitted = now if self.admitted_at is None else self.admitted_at
        first = now if self.first_token_at is None else self.first_token_at
        return Timings(admitted - self.arrived_at, first - admitted, now - first)


@dataclass(slots=True)
class Turn:
    """Whose turn it is: what `rllm.engine.line` keeps of a request."""

    order: tuple[float, int]
    """Who goes first: smaller is earlier. Fixed at arrival."""
    uncached: int
    """While waiting: how many tokens will have to be computed, as far as is known."""
    passed_tokens: int = 0
    """Prompt tokens of others that were let pass."""
    gave_way: bool = False
    """Somebody took a slot that this request was the first to wait for."""


class Sequence:
    """``tokens`` is the prompt and all that was drawn; the first ``computed`` of them have cells.

    The last drawn token, and what a constraint forced after it, never have one until the next step.
    """

    __slots__ = (
        "ban_lifted",
        "cached_tokens",
        "clock",
        "computed",
        "lookup",
        "request",
        "seq",
        "state",
        "text",
        "tokens",
        "turn",
        "unscored",
    )

    def __init__(self, request: EngineRequest, arrived_at: float, order: tuple[float, int]) -> None:
        self.request = request
        self.state = State.WAITING
        self.seq = -1
        self.tokens = list(request.prompt)
        self.computed = 0
        self.text = TextAssembler(request.stop, keeps_stop=request.keeps_stop)
        self.turn = Turn(order, uncached=len(request.prompt))
        self.clock = Clock(arrived_at)
        self.cached_tokens = 0
        self.ban_lifted = request.min_tokens <= 0
        self.unscored = 1 if request.scores_prompt else len(request.prompt)
        """The first token of the prompt whose log probability is wanted and not known."""
        self.lookup: Lookup | None = None
        """Where drafts come from, once it decodes: see `rllm.engine.drafts`."""

    @property
    def order(self) -> tuple[float, int]:
        return self.turn.order

    @property
    def num_output(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_pending(self) -> int:
        """Tokens that still have to be computed; while decoding the last drawn one and what it forced."""
        return len(self.tokens) - self.computed

    @property
    def num_uncached(self) -> int:
        """Tokens to compute until the next one is drawn; an estimate while waiting."""
        return self.turn.uncached if self.state is State.WAITING else self.num_pending

    def scored_by(self, end: int) -> SequenceOf[int]:
        """Whose log probabilities become known by computing the tokens up to ``end``."""
        return self.request.prompt[self.unscored : end + 1]

    def bans(self, end_tokens: frozenset[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What must not be drawn before there are enough tokens, and what never."""
        ends = end_tokens.difference(self.request.stop_tokens)
        never = tuple(ends) if self.request.ignore_eos else ()
        banned = () if self.ban_lifted else (*ends.difference(never), *self.request.stop_tokens)
        return banned, never

    def move(self, to: State) -> None:
        if to is not self.state and to not in _MOVES[self.state]:
            raise RuntimeError(f"request {self.request.id}: {self.state.value} -> {to.value}")
        self.state = to

    def draw(
        self, token: int, piece: Piece, is_end: bool, room: int, now: float
    ) -> tuple[str, FinishReason | None]:
        """Take the next token.

        Args:
            is_end: the token ends a generation.
            room: how many tokens the context can still hold after this one.

        Returns:
            text that became certain, and why the request is over, if it is.
        """
        if self.clock.first_token_at is None:
            self.clock.first_token_at = now
        self.tokens.append(token)
        if is_end:
            said = self.text.feed(piece) if self.request.keeps_stop else ""
            return said + self.text.flush(), FinishReason.STOP
        num_output = len(self.tokens) - len(self.request.prompt)
        text = self.text.feed(piece, num_output >= self.request.min_tokens)
        if self.text.stop_string is not None:
            return text, FinishReason.STOP
        if num_output >= self.request.max_tokens or room <= 0:
            return text + self.text.flush(), FinishReason.LENGTH
        return text, None

    def last_event(
        self,
        now: float,
        finish: FinishReason,
        error: str | None = None,
        *,
        text: str = "",
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> Event:
        return Event(
            request_id=self.request.id,
            text=text,
            tokens=tokens,
            logprobs=logprobs,
            finish=finish,
            stop_string=self.text.stop_string,
            error=error,
            usage=self.usage(),
            timings=self.clock.timings(now),
        )

    def usage(self) -> Usage:
        return Usage(len(self.request.prompt), self.num_output, self.cached_tokens)


def by_order(sequence: Sequence) -> tuple[float, int]:
    return sequence.turn.order
