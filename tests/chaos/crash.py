"""Workers that are killed, and workers that stand still, under streams."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from tests.chaos.asking import Answer, ask, body, prompt
from tests.chaos.result import Result
from tests.chaos.servers import ServerProcess, rllm


@dataclass(frozen=True)
class CrashPlan:
    model: Path
    sign: signal.Signals = signal.SIGKILL
    rounds: int = 10
    early: int = 16
    """Streams that have tokens when the worker is hit."""
    late: int = 16
    """Streams sent just before."""
    plain: int = 8
    """Requests without streaming."""
    max_tokens: int = 64
    num_words: int = 6
    threads: int = 1
    """Of each worker: there are several, and threads that wait for each other must not outnumber the cores."""
    slots: int = 32
    ctx: int = 512
    stall_timeout_s: float = 2.0
    patience_s: float = 5.0
    """Longest silence after the blow; a test on a busy machine allows for more."""
    after_s: float = 0.05
    """Between the late streams and the blow."""


async def run(plan: CrashPlan) -> Result:
    verb = "kill -9" if plan.sign is signal.SIGKILL else "kill -STOP"
    result = Result(
        "crash" if plan.sign is signal.SIGKILL else "hang",
        f"`{verb}` of one of two workers under {plan.early + plan.late} streams, {plan.rounds} times",
        f"rllm-serve --gguf {plan.model.name} --replicas 2 --slots {plan.slots} --ctx-size {plan.ctx} "
        f"--stall-timeout-s {plan.stall_timeout_s}; {plan.early} streams with tokens, {plan.late} just sent, "
        f"{plan.plain} without streaming; {plan.max_tokens} tokens each",
    )
    rows = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        options = (
            "--gguf",
            plan.model,
            "--replicas",
            2,
            "--threads",
            plan.threads,
            "--slots",
            plan.slots,
            "--ctx-size",
            plan.ctx,
        )
        more = ("--stall-timeout-s", plan.stall_timeout_s)
        async with rllm(http, *options, *more) as server:
            for number in range(plan.rounds):
                rows.append(await _round(http, server, plan, number, result))
            result.raw["status"] = await server.terminate()
    _judge(result, plan, rows)
    return result


async def _round(
    http: aiohttp.ClientSession, server: ServerProcess, plan: CrashPlan, number: int, result: Result
) -> dict[str, float]:
    answers: list[Answer] = []
    tasks: list[asyncio.Task[Answer]] = []

    def send(count: int, stream: bool) -> None:
        for _ in range(count):
            answer = Answer(time.monotonic())
            answers.append(answer)
            data = body(prompt(1000 * number + len(answers), plan.num_words), plan.max_tokens, stream=stream)
            tasks.append(asyncio.create_task(ask(http, server.url, data, answer=answer)))

    calm_s = await _calm(http, server)
    pids = await _worker_pids(http, server)
    lost_before = await server.metric(http, "rllm_sequences_lost_total")
    send(plan.early, True)
    while not all(answer.arrivals or answer.ended_at for answer in answers):
        await asyncio.sleep(0.01)
    send(plan.late, True)
    send(plan.plain, False)
    await asyncio.sleep(plan.after_s)
    names = sorted(pids)
    victim = names[number % len(names)]
    os.kill(pids[victim], plan.sign)
    hit_at = time.monotonic()
    begun = [bool(answer.arrivals) for answer in answers]
    running = [not answer.ended_at for answer in answers]
    returning = asyncio.create_task(_wait_back(http, server, victim, pids[victim], hit_at))
    await asyncio.gather(*tasks)
    back_s = await returning
    served = (await ask(http, server.url, body("Are you there?", 8))).is_whole
    lost = await server.metric(http, "rllm_sequences_lost_total") - lost_before
    affected = [i for i, answer in enumerate(answers) if running[i]]
    waits = [_next_sign(answers[i], hit_at) for i in affected if answers[i].streaming]
    unseen = [answers[i] for i in affected if not begun[i] or not answers[i].streaming]
    # Tokens that had left the worker before the blow may reach the client after it: these have begun, too.
    crossed = [answer for answer in unseen if answer.code is not None and answer.arrivals]
    unseen = [answer for answer in unseen if answer not in crossed]
    result.raw.setdefault("rounds", []).append([answer.row() for answer in answers])
    return {
        "round": number + 1,
        "waited for calm s": round(calm_s, 1),
        "streams": sum(answers[i].streaming for i in affected),
        "in flight": len(affected),
        "on the victim": round(lost),
        "unseen": len(unseen),
        "unseen whole": sum(a.is_whole and a.num_tokens == plan.max_tokens for a in unseen),
        "first token crossed the blow": len(crossed),
        "typed errors": sum(answers[i].code is not None for i in affected),
        "untyped": sum(not answers[i].is_typed for i in affected),
        "longest silence s": round(max(waits, default=0.0), 3),
        "worker back s": round(back_s, 2),
        "serving": int(served),
    }


async def _calm(http: aiohttp.ClientSession, server: ServerProcess) -> float:
    """Until every instance is ready and its breaker closed: five faults in a minute open it, rightly, for 10 s."""
    began = time.monotonic()
    async with asyncio.timeout(60):
        while True:
            states = (await server.instances(http)).values()
            samples = await server.metrics(http)
            away = [
                s for name, s, v in samples if name == "rllm_breaker_state" and v and s["state"] != "closed"
            ]
            if set(states) == {"ready"} and not away:
                return time.monotonic() - began
            await asyncio.gather(*(ask(http, server.url, body(f"Ready {i}?", 4)) for i in range(2)))
            await asyncio.sleep(0.3)


def _next_sign(answer: Answer, since: float) -> float:
    """From the blow to the next token, or the error."""
    return next((at for at in answer.arrivals if at >= since), answer.ended_at) - since


async def _worker_pids(http: aiohttp.ClientSession, server: ServerProcess) -> dict[str, int]:
    """Instances by name; a worker's number is the order in which it was started last, so ask the log."""
    pids: dict[str, int] = {}
    for line in server.log.read_bytes().splitlines():
        if b'"worker ready"' in line:
            event = orjson.loads(line)
            pids[event["instance"]] = event["pid"]
    return pids


async def _wait_back(
    http: aiohttp.ClientSession, server: ServerProcess, name: str, old_pid: int, since: float
) -> float:
    async with asyncio.timeout(60):
        while True:
            states = await server.instances(http)
            pids = await _worker_pids(http, server)
            if states[name] == "ready" and pids[name] != old_pid:
                return time.monotonic() - since
            await asyncio.sleep(0.05)


def _judge(result: Result, plan: CrashPlan, rows: list[dict[str, float]]) -> None:
    columns = list(rows[0])
    result.tables.append(("Rounds", columns, [[row[name] for name in columns] for row in rows]))
    longest = max(row["longest silence s"] for row in rows)
    unseen = sum(row["unseen"] for row in rows)
    whole = sum(row["unseen whole"] for row in rows)
    result.check(
        f"every stream sees its next token or a typed error within {plan.patience_s:.0f} s",
        longest <= plan.patience_s,
        f"longest silence {longest:.2f} s over {sum(r['in flight'] for r in rows):.0f} requests in flight",
    )
    streams = plan.early + plan.late
    result.check(
        f"{streams} streams were under way at each blow, some of them on the victim",
        all(row["streams"] >= streams and row["on the victim"] > 0 for row in rows),
        f"at least {min(r['streams'] for r in rows):.0f}, at least {min(r['on the victim'] for r in rows):.0f} "
        "requests on the victim",
    )
    untyped = sum(row["untyped"] for row in rows)
    result.check("nobody meets a cut or a silence", untyped == 0, f"{untyped:.0f} untyped ends")
    result.check(
        "requests that had streamed nothing complete with 200 and full length",
        unseen == whole and unseen > 0,
        f"{whole:.0f} of {unseen:.0f}",
    )
    result.check(
        f"the worker is back and serving, {plan.rounds} times in a row",
        all(row["serving"] for row in rows) and len(rows) == plan.rounds,
        f"slowest return {max(row['worker back s'] for row in rows):.1f} s after the blow",
    )
    result.check("SIGTERM afterwards ends it with 0", result.raw["status"] == 0, f"{result.raw['status']}")
