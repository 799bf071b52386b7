"""Fuzzes a server from its own OpenAPI document: half of the requests fit the schema, half do not.

Used by `test_fuzz` against the fake service and by ``scripts/fuzz`` against a live server. Answers are
held to the document too: status codes, content types and bodies must be documented ones, and a request
that the schema forbids must not be answered 200.

To keep a run finite, requests that may generate get ``max_tokens`` of at most `MAX_TOKENS` and ``n`` of at
most `MAX_N` where theirs is a larger number (or, for max_tokens, none). Requests that do not fit the schema
are sent as they are.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.errors import SchemathesisError
from schemathesis.core.failures import AcceptedNegativeData, Failure, FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

MAX_TOKENS = 8
MAX_N = 2
CHECKS = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]
GENERATING = ("/v1/chat/completions", "/v1/completions")


@dataclass
class Outcome:
    statuses: Counter[int] = field(default_factory=Counter)
    by_path: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    hangs: int = 0
    """No answer in time, or a broken connection."""
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return self.statuses.total() + self.hangs

    def count(self, lowest: int) -> int:
        return sum(count for status, count in self.statuses.items() if lowest <= status < lowest + 100)

    @property
    def share_ok(self) -> float:
        return self.statuses[200] / max(self.total, 1)


def fuzz(
    url: str,
    num_requests: int,
    *,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    random_seed: int = 0,
    parallel: int = 1,
    progress: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Send about ``num_requests``, most of them to the routes that generate, ``parallel`` at a time."""
    load_all_checks()
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    outcome = Outcome()

    def send(case: Any) -> None:
        _send(case, url, headers, timeout_s, outcome)
        if progress is not None:
            progress(outcome)

    with ThreadPoolExecutor(parallel) as pool:
        for operation, mode, share in _plan(schema):
            cases = _generate(operation, mode, max(1, round(num_requests * share)), random_seed)
            for _ in pool.map(send, cases):
                pass
    return outcome


def _plan(schema: Any) -> Iterator[tuple[Any, GenerationMode, float]]:
    """What is sent, and its share. Operations without parameters cannot be wrong."""
    operations = [result.ok() for result in schema.get_all_operations()]
    posts = [operation for operation in operations if operation.method == "post"]
    gets = [operation for operation in operations if operation.method == "get"]
    weights = {operation.path: 4 if operation.path in GENERATING else 1 for operation in posts}
    total = sum(weights.values())
    for operation in posts:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            yield operation, mode, 0.95 * weights[operation.path] / total / 2
    for operation in gets:
        yield operation, GenerationMode.POSITIVE, 0.05 / len(gets)


def _generate(operation: Any, mode: GenerationMode, count: int, random_seed: int) -> list[Any]:
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except SchemathesisError:
        return []  # nothing of this kind can be generated
    cases: list[Any] = []

    @seed(random_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: Any) -> None:
        cases.append(data.draw(strategy))

    run()
    return cases


def _send(case: Any, url: str, headers: dict[str, str], timeout_s: float, outcome: Outcome) -> None:
    if case.operation.path in GENERATING and case.meta.generation.mode is GenerationMode.POSITIVE:
        _limit(case.body)
    started = time.monotonic()
    try:
        response = case.call(base_url=url, headers=headers, timeout=timeout_s)
    except (requests.Timeout, requests.ConnectionError) as error:
        with outcome.lock:
            outcome.hangs += 1
            outcome.failures.append(f"{case.method} {case.path}: {type(error).__name__}: {_short(case.body)}")
        return
    failures = list(_failures(case, response))
    with outcome.lock:
        outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started)
        outcome.statuses[response.status_code] += 1
        outcome.by_path.setdefault(case.operation.path, Counter())[response.status_code] += 1
        outcome.failures += failures


def _failures(case: Any, response: Any) -> Iterator[str]:
    where = f"{case.method} {case.path} {response.status_code}"
    if response.status_code >= 500:
        yield f"{where}: {_short(case.body)}"
    elif not _is_stream(response):
        try:
            case.validate_response(response, checks=CHECKS)
        except (Failure, FailureGroup) as failure:
            reasons = [
                reason
                for reason in getattr(failure, "exceptions", [failure])
                # 413 refuses, too: schemathesis does not know it as an answer to what the schema forbids
                if not (response.status_code == 413 and isinstance(reason, AcceptedNegativeData))
            ]
            if not reasons:
                return
            found = "; ".join(f"{type(reason).__name__}: {_short(reason)}" for reason in reasons)
            yield f"{where}: {found}: {_short(case.body)}"


def _limit(body: Any) -> None:
    if not isinstance(body, dict):
        return
    if body.get("max_tokens") is None or _is_above(body["max_tokens"], MAX_TOKENS):
        body["max_tokens"] = MAX_TOKENS
        if _is_above(body.get("min_tokens"), MAX_TOKENS):
            body["min_tokens"] = MAX_TOKENS
    if _is_above(body.get("n"), MAX_N):
        body["n"] = MAX_N


def _is_above(value: object, limit: int) -> bool:
    return isinstance(value, int | float) and value > limit


def _is_stream(response: Any) -> bool:
    """Its body is events; the document can only say that it is text."""
    return "text/event-stream" in str(response.headers.get("content-type", ""))


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}…"


def report(outcome: Outcome) -> str:
    lines = [f"{outcome.total} requests, slowest {outcome.slowest_s:.2f} s"]
    for name, count in (
        ("200", outcome.statuses[200]),
        ("4xx", outcome.count(400)),
        ("5xx", outcome.count(500)),
        ("hangs", outcome.hangs),
    ):
        lines.append(f"  {name:6}{count:7}  {count / max(outcome.total, 1):6.1%}")
    for path, statuses in sorted(outcome.by_path.items()):
        lines.append(
            f"  {path}: " + ", ".join(f"{status} x{count}" for status, count in sorted(statuses.items()))
        )
    unique = list(dict.fromkeys(outcome.failures))
    lines += [f"  ! {failure}" for failure in unique[:20]]
    if len(unique) > 20:
        lines.append(f"  … and {len(unique) - 20} more")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--api-key")
    parser.add_argument("--parallel", type=int, default=1, help="requests at a time")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a request hangs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-ok", type=float, default=0.3, help="least share of requests answered 200")
    arguments = parser.parse_args()
    last = [time.monotonic()]

    def progress(outcome: Outcome) -> None:
        if time.monotonic() - last[0] > 10:
            last[0] = time.monotonic()
            print(f"{outcome.total} requests, {outcome.share_ok:.0%} answered 200", file=sys.stderr)

    outcome = fuzz(
        arguments.url.rstrip("/"),
        arguments.requests,
        api_key=arguments.api_key,
        timeout_s=arguments.timeout,
        random_seed=arguments.seed,
        parallel=arguments.parallel,
        progress=progress,
    )
    print(report(outcome))
    chat = {"messages": [{"role": "user", "content": "Are you still there?"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {arguments.api_key}"} if arguments.api_key else {}
    last_answer = requests.post(
        f"{arguments.url.rstrip('/')}/v1/chat/completions",
        json=chat,
        headers=headers,
        timeout=arguments.timeout,
    )
    print(f"a good request afterwards: {last_answer.status_code}")
    is_good = not outcome.failures and outcome.share_ok >= arguments.min_ok and last_answer.status_code == 200
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
