"""What an instance offers, and the account of what it was given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rllm.backends.fake import FakeBackend
from rllm.backends.options import FakeOptions
from rllm.engine.types import EngineRequest, Event, FinishReason, SamplingParams, Started, StepRecord, Usage
from rllm.serving.breaker import Breaker
from rllm.serving.observer import Observer
from rllm.serving.offer import Offer
from rllm.serving.outstanding import Outstanding, Progress
from rllm.serving.pending import Pending
from rllm.serving.prefixes import BLOCK, prefixes_of
from rllm.serving.stream import Stream
from rllm.serving.timeouts import Times
from rllm.workers.frames import StepFrame

blocks = st.sampled_from([(0,) * BLOCK, (1,) * BLOCK])
prompts = st.lists(blocks, max_size=3).map(lambda parts: (*sum(parts, ()), 2))


class Given:
    """An instance without a worker: what it was given, and who is over with how many tokens."""

    def __init__(self, *, reuses_prefixes: bool = True) -> None:
        self.over: list[tuple[str, int]] = []
        progress = Progress(
            on_started=lambda pending: None,
            on_first_token=lambda pending: None,
            on_over=lambda pending, used: self.over.append((pending.request.id, used)),
        )
        self.outstanding = Outstanding(
            "m", "m-0", Observer(), Breaker(), progress, lambda pending, event, now: None
        )
        self.outstanding.begin(FakeBackend(FakeOptions(slots=2)).info, reuses_prefixes=reuses_prefixes)
        frame = StepFrame(step=StepRecord(prefill_tokens=100, execute_s=1.0))
        self.outstanding.hear(frame)  # a prompt token takes 10 ms

    def offer(self, *requests: EngineRequest) -> Offer:
        return self.outstanding.offer(requests, prefixes_of(requests), lambda pending: None)

    def accept(self, offer: Offer) -> None:
        for request, prefix, estimate in zip(offer.requests, offer.prefixes, offer.estimates, strict=True):
            stream = Stream(request.id, lambda request_id: None)
            self.outstanding.add(Pending(request, prefix, stream, Times(0.0), estimate))


def _request(name: str, prompt: tuple[int, ...], salt: str = "", scores: int = -1) -> EngineRequest:
    sampling = SamplingParams(num_prompt_logprobs=scores)
    return EngineRequest(id=name, prompt=prompt, max_tokens=8, cache_salt=salt, sampling=sampling)


@st.composite
def crowds(draw: st.DrawFn) -> list[EngineRequest]:
    """Some prompts with some choices each, of which some share nothing."""
    found: list[EngineRequest] = []
    for prompt in draw(st.lists(prompts, min_size=1, max_size=4)):
        scores, salt = draw(st.sampled_from([-1, -1, 0])), draw(st.sampled_from(["", "other"]))
        num = draw(st.integers(1, 3))
        found += [_request(f"{len(found) + n}", prompt, salt, scores) for n in range(num)]
    return found


@given(st.lists(prompts, max_size=4), crowds(), st.booleans())
def test_an_offer_for_several_is_what_each_would_be_offered_behind_the_others(
    before: list[tuple[int, ...]], requests: list[EngineRequest], reuses: bool
) -> None:
    together, apart = Given(reuses_prefixes=reuses), Given(reuses_prefixes=reuses)
    for instance in (together, apart):
        for number, prompt in enumerate(before):
            instance.accept(instance.offer(_request(f"before {number}", prompt)))
    offer = together.offer(*requests)
    singles: list[Offer] = []
    for request in requests:
        singles.append(apart.offer(request))
        apart.accept(singles[-1])
    assert list(offer.estimates) == [single.estimates[0] for single in singles]
    assert offer.uncached_tokens == sum(single.uncached_tokens for single in singles)
    together.accept(offer)
    assert together.outstanding.load() == apart.outstanding.load()


@given(crowds(), st.data())
def test_every_request_is_over_once_and_leaves_nothing_behind(
    requests: list[EngineRequest], data: st.DataObject
) -> None:
    instance = Given()
    instance.accept(instance.offer(*requests))
    left, generated = [request.id for request in requests], dict.fromkeys((r.id for r in requests), 0)
    while left:
        name = data.draw(st.sampled_from(left))
        if generated[name] == 0:
            instance.outstanding.hear(StepFrame(started=(Started(name, 0, 0),)))
        generated[name] += 1
        reasons = st.sampled_from([None, *FinishReason] if generated[name] < 3 else [*FinishReason])
        finish = data.draw(reasons)
        usage = Usage(10, generated[name], 0) if finish else None
        event = Event(request_id=name, text="x", tokens=(1,), finish=finish, usage=usage)
        instance.outstanding.hear(StepFrame(events=(event, event) if finish else (event,)))
        if finish:
            left.remove(name)
        load = instance.outstanding.load()
        waiting = [pending for pending in instance.outstanding.pending.values() if not pending.has_token]
        assert load.requests == len(left)
        assert load.pending_prompt_tokens == sum(p.estimate.uncached_tokens for p in waiting)
        assert load.queued_prompt_tokens <= load.pending_prompt_tokens <= load.outstanding_tokens
    assert sorted(instance.over) == sorted((r.id, 10 + generated[r.id]) for r in requests)
    assert instance.outstanding.load().outstanding_tokens == 0
