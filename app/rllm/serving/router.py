"""What the instances of a model offer a request, and which offer is the best. Nothing is given out here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rllm.engine.types import EngineRequest
from rllm.errors import Overloaded
from rllm.serving.admission import MAX_RETRY_S, check_load, retry_after_s
from rllm.serving.dispatcher import choose
from rllm.serving.instance import Instance
from rllm.serving.offer import Offer
from rllm.serving.pending import Pending
from rllm.serving.prefixes import prefixes_of
from rllm.serving.rates import Refusals
from rllm.serving.terms import Terms
from rllm.settings.limits import Limits, Timeouts


class Router:
    """Asks the instances for offers, and refuses what the best of them has no room for."""

    def __init__(self, model: str, instances: Sequence[Instance], limits: Limits, timeouts: Timeouts) -> None:
        self._model = model
        self._instances = instances
        self._limits = limits
        self._most_ttft_s = (limits.target_ttft_s, timeouts.first_token_s, timeouts.total_s)
        self._refusals = Refusals()

    @property
    def is_available(self) -> bool:
        """Whether some instance takes requests now."""
        now = time.monotonic()
        return any(instance.is_open_to(now) for instance in self._instances)

    def offer(self, requests: Sequence[EngineRequest], terms: Terms) -> Offer:
        """The best offer for all sequences of a request.

        Raises:
            Overloaded: no instance takes requests, or the best one has too much to do.
        """
        now, patience_s = time.monotonic(), self._patience_s(terms)
        prefixes = prefixes_of(requests)
        offers = [
            instance.outstanding.offer(requests, prefixes, instance.submit)
            for instance in self._instances
            if instance.is_open_to(now)
        ]
        if not offers:
            raise self._nobody(now)
        best = _best(offers)
        try:
            check_load(best.load, self._limits, len(requests), best.uncached_tokens, patience_s)
        except Overloaded as error:
            self._spread(error, now)
            raise
        return best

    def check_open(self, num_requests: int, terms: Terms) -> None:
        """Check that some instance has room for requests with the shortest possible prompts.

        Raises:
            Overloaded: `offer` would refuse them, whatever their prompts are.
        """
        now, patience_s = time.monotonic(), self._patience_s(terms)
        refusal: Overloaded | None = None
        for instance in self._instances:
            if not instance.is_open_to(now):
                continue
            try:
                check_load(instance.outstanding.load(num_requests), self._limits, num_requests, 0, patience_s)
            except Overloaded as error:
                refusal = refusal or error
            else:
                return
        if refusal is None:
            raise self._nobody(now)
        self._spread(refusal, now)
        raise refusal

    def replacement(self, pending: Pending) -> Offer | None:
        """The offer for a request that lost its worker. None: no worker is up.

        An open breaker is no obstacle where no other worker is up: the request was accepted, its client
        waits, and a second attempt is its last.
        """
        now = time.monotonic()
        open_ = [instance for instance in self._instances if instance.is_open_to(now)]
        ready = [instance for instance in self._instances if instance.is_ready]
        least = sorted(ready, key=lambda instance: len(instance.outstanding.pending))[:1]
        offers = [
            instance.outstanding.offer([pending.request], [pending.prefix], instance.submit)
            for instance in open_ or least
        ]
        return _best(offers) if offers else None

    def _patience_s(self, terms: Terms) -> float | None:
        """The longest that a first token may take; None: as long as it takes. A limit of 0 is none."""
        return min(filter(None, (terms.ttft_s, terms.timeout_s, *self._most_ttft_s)), default=None)

    def _nobody(self, now: float) -> Overloaded:
        waits = [
            instance.breaker.reopens_in_s(now) if instance.is_ready else 2.0 for instance in self._instances
        ]
        return Overloaded(
            f"no instance of {self._model} takes requests at the moment",
            retry_after_s=max(0.5, min(waits)),
            bound="no_instance",
        )

    def _spread(self, error: Overloaded, now: float) -> None:
        """Make its turn come after those that were refused before it."""
        gaps = [gap_s for gap_s in self._gaps_s() if gap_s is not None]
        if gaps and error.retry_after_s is not None:
            behind_s = self._refusals.count(now) * min(gaps) / len(gaps)
            error.retry_after_s = min(MAX_RETRY_S, error.retry_after_s + behind_s)
        self._refusals.add(now)

    def retry_after_s(self) -> float:
        """Seconds until the next request has probably left one of the instances."""
        return min((retry_after_s(gap_s, 1) for gap_s in self._gaps_s()), default=1.0)

    def _gaps_s(self) -> list[float | None]:
        return [i.outstanding.gap_s for i in self._instances if i.outstanding.info is not None]


def _best(offers: Sequence[Offer]) -> Offer:
    if len(offers) == 1:
        return offers[0]
    num_tokens = len(offers[0].requests[0].prompt)
    return offers[choose([offer.candidate for offer in offers], num_tokens, slack_tokens=2 * num_tokens)]
