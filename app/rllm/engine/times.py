"""What computing and moving tokens takes on this machine: one account, learned from the steps.

Every estimate is a running mean of what was measured, and None or 0 before the first measurement. A way that
is refused is not measured any more. So its estimate gets a little better each time it is refused: one that
was wrong once (swapped memory, a busy disk) does not stay wrong.
"""

from __future__ import annotations

from bisect import bisect, insort
from dataclasses import dataclass

from rllm.engine.port import Effort, Plan, StepResult, StoreReport
from rllm.engine.tuning import DEFAULT, Tuning


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a step computed."""

    decodes: int = 0
    prefill: int = 0
    """Prompt tokens."""
    rows: int = 0
    """Tokens of all kinds, drafts included."""
    scores: bool = False
    """Some prompt tokens got log probabilities, which takes its own time."""
    reused: bool = True
    """No graph was built for it."""

    @classmethod
    def of(cls, plan: Plan, result: StepResult) -> StepShape:
        return cls(
            decodes=plan.num_decodes,
            prefill=plan.num_prefill,
            rows=plan.num_tokens,
            scores=plan.num_prefill > 0 and any(chunk.scored for chunk in plan.chunks),
            reused=result.graphs_reused > 0,
        )


class StepTimes:
    """Times of steps by their shape, and of moves by their size."""

    def __init__(self, tuning: Tuning = DEFAULT) -> None:
        self.token_s: float | None = None
        """One more prompt token in a step."""
        self.decode_s: float | None = None
        """A step of nothing but decodes."""
        self.rows = RowTimes(tuning)
        """Steps of nothing but decodes, by their number of rows."""
        self.change = GraphChange(self.rows, tuning)
        self.copy_cell = Rate(tuning)
        self.save_byte = Rate(tuning)
        self.restore_byte = Rate(tuning)
        self.load_byte = Rate(tuning)
        """From disk."""
        self._tuning = tuning

    def learn(self, shape: StepShape, seconds: float) -> None:
        """A step of that shape took so many seconds."""
        if seconds <= 0:
            return
        weight = self._tuning.step_weight
        if not shape.prefill:
            if shape.decodes:
                self.decode_s = _blend(self.decode_s, seconds, weight)
                self.change.learn(shape.rows, seconds, reused=shape.reused)
        elif shape.prefill >= self._tuning.min_learn and not shape.scores:
            rest = seconds - (self.decode_s or 0.0) if shape.decodes else seconds
            self.token_s = _blend(self.token_s, max(rest, seconds * 0.1) / shape.prefill, weight)

    def learn_moves(self, result: StepResult) -> None:
        """What a step moved beside computing."""
        store = result.store or _NOTHING
        self.copy_cell.learn(result.copied)
        self.save_byte.learn(store.save)
        self.restore_byte.learn(store.restore)
        self.load_byte.learn(store.load)


class Rate:
    """Seconds per unit: a mean over the last few measurements, in which large moves count for more."""

    __slots__ = ("_amount", "_seconds", "_tuning", "is_refused")

    def __init__(self, tuning: Tuning) -> None:
        self._amount = self._seconds = 0.0
        self._tuning = tuning
        self.is_refused = False
        """In this step. It is doubted once, however often it was asked for."""

    @property
    def is_known(self) -> bool:
        return self._amount > 0

    def learn(self, effort: Effort) -> None:
        if self.is_refused:
            self._seconds *= self._tuning.trust
            self.is_refused = False
        if effort.amount > 0:
            memory = 1 - self._tuning.move_weight
            self._amount = memory * self._amount + effort.amount
            self._seconds = memory * self._seconds + effort.seconds

    def seconds(self, amount: int) -> float:
        """0 where nothing was measured."""
        return self._seconds / self._amount * amount if self.is_known else 0.0


class RowTimes:
    """What a step of so many rows takes. A row is a token that is computed and sampled after.

    Their number alone does not say it: kernels compute rows in groups, and a GPU takes as long for eight as
    for one.
    """

    def __init__(self, tuning: Tuning = DEFAULT) -> None:
        self._tuning = tuning
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._known: list[int] = []
        """Numbers of rows, in order."""

    def learn(self, rows: int, seconds: float) -> None:
        """The first step of its kind builds a graph, and a single one may have been disturbed."""
        if seconds <= 0:
            return
        seen = self._seen[rows] = self._seen.get(rows, 0) + 1
        if seen == 1:
            return
        if seen == self._tuning.known_after + 1:
            insort(self._known, rows)
        before = self._seconds.get(rows, seconds)
        self._seconds[rows] = _blend(before, min(seconds, 2 * before), self._tuning.step_weight)

    def seconds(self, rows: int) -> float | None:
        """None as long as that is not known."""
        return self._seconds[rows] if self._seen.get(rows, 0) > self._tuning.known_after else None

    def estimate(self, rows: int, row_s: float) -> float | None:
        """Also for a number that was never tried: on the line between its known neighbours; beyond the
        largest as if a row more took ``row_s``. None where none as small is known."""
        if (own := self.seconds(rows)) is not None:
            return own
        at = bisect(self._known, rows)
        if at == 0:
            return None
        lower = self._known[at - 1]
        if at < len(self._known):
            upper = self._known[at]
            row_s = (self._seconds[upper] - self._seconds[lower]) / (upper - lower)
        return self._seconds[lower] + (rows - lower) * row_s

    def doubt(self, rows: int) -> None:
        """Steps of so many rows were refused."""
        if rows in self._seconds:
            self._seconds[rows] *= self._tuning.trust


class GraphChange:
    """What the first steps with another number of rows take longer: graphs are built for them.

    Passes on to `RowTimes` what a step takes without that.
    """

    def __init__(self, rows: RowTimes, tuning: Tuning) -> None:
        self.seconds = 0.0
        """Of one change, all of its longer steps together."""
        self._times = rows
        self._tuning = tuning
        self._rows = self._steps = 0
        """Of the last step, and how many there were with that number before it."""
        self._longer_s = 0.0
        """Of the present number, so far."""
        self._settled: set[int] = set()
        """Numbers of rows that were timed when nothing was new any more."""

    def learn(self, rows: int, seconds: float, *, reused: bool) -> None:
        if reused and rows == self._rows:
            self._steps += 1
        else:
            self._note()
            self._rows, self._steps = rows, 0
        usual = self._times.seconds(rows)
        if self._steps >= self._tuning.settling_steps:
            self._times.learn(rows, seconds)
            self._settled.add(rows)
        elif rows not in self._settled:  # too seldom in a row to know better
            self._times.learn(rows, seconds if self._steps else max(seconds - self.seconds, seconds / 2))
        elif usual is not None:
            self._longer_s += min(max(0.0, seconds - usual), self._tuning.most_change_s)
            if self._steps == self._tuning.settling_steps - 1:
                self._note()

    def _note(self) -> None:
        if self._longer_s:
            self.seconds = _blend(self.seconds, self._longer_s, self._tuning.change_weight)
        self._longer_s = 0.0


_NOTHING = StoreReport()


def _blend(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + weight * (new - old)
