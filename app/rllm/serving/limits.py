"""The limits of an API key: requests and tokens per minute, and requests at a time.

Token buckets are full at first and refilled evenly. A request is charged its prompt and all of its max_tokens
when it is accepted; what it did not use is given back when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rllm.errors import RateLimited
from rllm.serving.terms import Headers


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use. 0: no limit."""

    requests_per_min: int = 0
    tokens_per_min: int = 0
    concurrency: int = 0
    priority: int = 0
    """It is added to the priority of the key's requests. Lower runs earlier; callers cannot go below it."""


class Bucket:
    """Holds at most ``capacity``, refilled at ``capacity`` per minute."""

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        self._level = min(float(self.capacity), self._level + max(0.0, now - self._at) * self.capacity / 60)
        self._at = max(self._at, now)
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Use ``amount``. The level falls below 0 where more was used than had been reckoned with."""
        self._level = self.level(now) - amount

    def give_back(self, amount: float, now: float) -> None:
        self._level = min(float(self.capacity), self.level(now) + amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` is there; 0 when it is."""
        return max(0.0, (amount - self.level(now)) * 60 / self.capacity)

    def resize(self, capacity: int, now: float) -> None:
        """Change the capacity; what was used stays used."""
        self._level = self.level(now) + capacity - self.capacity
        self.capacity = capacity


class Account:
    """One key's use of the server."""

    def __init__(self, limits: KeyLimits, now: float) -> None:
        self.running = 0
        self.limits = limits
        self._requests = Bucket(limits.requests_per_min, now)
        self._tokens = Bucket(limits.tokens_per_min, now)

    def change(self, limits: KeyLimits, now: float) -> None:
        self.limits = limits
        self._requests.resize(limits.requests_per_min, now)
        self._tokens.resize(limits.tokens_per_min, now)

    def admit(self, tokens: int, now: float) -> None:
        """Charge a request.

        Raises:
            RateLimited: it would exceed one of the limits; nothing was charged.
        """
        limits = self.limits
        if limits.concurrency and self.running >= limits.concurrency:
            raise self._refusal(
                f"{self.running} requests of this API key are running and its limit is {limits.concurrency}",
                1.0,
                now,
                bound="concurrency",
            )
        if 0 < limits.tokens_per_min < tokens:
            message = (
                f"the request needs up to {tokens} tokens and this API key may use {limits.tokens_per_min} "
                "per minute"
            )
            error = self._refusal(message, None, now, bound="tokens")
            error.headers += (("x-should-retry", "false"),)
            raise error
        self._check_buckets(tokens, now)
        if limits.tokens_per_min:
            self._tokens.take(tokens, now)
        if limits.requests_per_min:
            self._requests.take(1, now)
        self.running += 1

    def _check_buckets(self, tokens: int, now: float) -> None:
        """Refuse with the longer of both waits, so that one wait is enough."""
        limits = self.limits
        requests_s = self._requests.wait_s(1, now) if limits.requests_per_min else 0.0
        tokens_s = self._tokens.wait_s(tokens, now) if limits.tokens_per_min else 0.0
        if requests_s <= 0 and tokens_s <= 0:
            return
        if requests_s > 0:
            message = f"this API key may send {limits.requests_per_min} requests per minute"
        else:
            left = max(0, math.floor(self._tokens.level(now)))
            message = (
                f"this API key may use {limits.tokens_per_min} tokens per minute; {left} are left and "
                f"{tokens} are needed"
            )
        bound = "requests" if requests_s > 0 else "tokens"
        raise self._refusal(message, max(requests_s, tokens_s), now, bound=bound)

    def _refusal(self, message: str, wait_s: float | None, now: float, *, bound: str) -> RateLimited:
        wait_s = None if wait_s is None else max(0.001, wait_s)
        error = RateLimited(message, retry_after_s=wait_s, bound=bound)
        error.headers = self.headers(now)
        return error

    def settle(self, charged: int, used: int, now: float) -> None:
        """Give back what a request did not use: it is over."""
        self.running -= 1
        if self.limits.tokens_per_min:
            self._tokens.give_back(charged - used, now)

    def headers(self, now: float) -> Headers:
        """The x-ratelimit headers, as OpenAI sends them."""
        pairs: list[tuple[str, str]] = []
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket.capacity:
                pairs.append((f"x-ratelimit-limit-{kind}", str(bucket.capacity)))
                left = max(0, math.floor(bucket.level(now) + 1e-9))
                pairs.append((f"x-ratelimit-remaining-{kind}", str(left)))
                pairs.append((f"x-ratelimit-reset-{kind}", duration(bucket.wait_s(bucket.capacity, now))))
        return tuple(pairs)


class Permit:
    """Holds the charge of one request until the last of its sequences is over, then settles it."""

    def __init__(
        self, account: Account, charged: int, num_sequences: int, clock: Callable[[], float]
    ) -> None:
        self._account = account
        self._charged = charged
        self._left = num_sequences
        self._used = 0
        self._clock = clock

    def sequence_over(self, used_tokens: int) -> None:
        self._used += used_tokens
        self._left -= 1
        if self._left == 0:
            self._account.settle(self._charged, self._used, self._clock())


class Limiter:
    """Holds the accounts of all keys. A reload changes limits and forgets keys that are gone."""

    def __init__(self, limits: dict[str, KeyLimits], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._accounts = {name: Account(of_key, clock()) for name, of_key in limits.items()}

    def replace(self, limits: dict[str, KeyLimits]) -> None:
        now = self._clock()
        kept = {name: self._accounts[name] for name in limits if name in self._accounts}
        for name, account in kept.items():
            account.change(limits[name], now)
        fresh = {name: Account(limits[name], now) for name in limits if name not in kept}
        self._accounts = {**kept, **fresh}

    def priority(self, key: str | None) -> int:
        account = self._accounts.get(key or "")
        return account.limits.priority if account else 0

    def admit(self, key: str | None, tokens: int, num_sequences: int) -> tuple[Permit | None, Headers]:
        """
        Raises:
            RateLimited: see `Account.admit`.
        """
        account = self._accounts.get(key or "")
        if account is None:
            return None, ()
        now = self._clock()
        account.admit(tokens, now)
        return Permit(account, tokens, num_sequences, self._clock), account.headers(now)


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: 20ms, 1s, 6m0s, 1h2m3s."""
    if 0 < seconds < 1:
        return f"{max(1, math.ceil(seconds * 1000 - 1e-9))}ms"
    whole = math.ceil(seconds - 1e-9)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{secs}s"
    return f"{minutes}m{secs}s" if minutes else f"{secs}s"
