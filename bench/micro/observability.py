"""What it costs to see: tokens/s at 16 streams with everything on, pair by pair against everything off.

    python -m micro.observability [--pairs 20] [--on metrics,logs,tracing,ui] [--out DIR]

Two servers of the same file and settings are up for the whole run and take turns, as in `rllm-bench versus`,
whose records and page these are.

    off   --no-metrics --log-level error --no-ui
    on    metrics, which the bench reads once a second; a JSON line for every request; spans to a collector;
          what /ui asks for, as often as it asks. The collector and the page are this process.

What was on is not believed but counted: answers to the page, log lines and bytes of spans are in seen.json.
Exit status 1 where the ratio's interval does not lie above 0.97.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import click
from aiohttp import web

from rllm_bench.figures.paired import Paired, paired
from rllm_bench.figures.summary import summarize
from rllm_bench.records.cells import CellSpec, Settings
from rllm_bench.records.store import Store
from rllm_bench.report.page import render
from rllm_bench.run import plan
from rllm_bench.run.console import Plain
from rllm_bench.run.matrix import execute, prepare
from rllm_bench.targets import processes
from rllm_bench.targets.catalog import Places
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running

STREAMS, CTX = 16, 1024
PARTS = ("metrics", "logs", "tracing", "ui")
ON, OFF = "url/on", "url/off"
GOAL = 0.97
UI_PATH, UI_S = "/v1/rllm/state", 1.0
"""What the page asks for while it is open, and how often."""


def available(parts: list[str]) -> tuple[list[str], dict[str, str]]:
    """Which of the parts this Python has, and why not the others."""
    missing = {}
    if importlib.util.find_spec("opentelemetry") is None:
        missing["tracing"] = "rllm[tracing] is not installed"
    return [part for part in parts if part not in missing], {p: missing[p] for p in parts if p in missing}


def switches(parts: list[str], collector: str) -> list[str]:
    """Options of a server with these parts on and the others off."""
    options = [] if "metrics" in parts else ["--no-metrics"]
    options += [] if "ui" in parts else ["--no-ui"]
    options += ["--log-format", "json", "--log-level", "info" if "logs" in parts else "error"]
    return options + (["--otlp-endpoint", collector] if "tracing" in parts else [])


class Watchers(Plain):
    """An Observer whose thread is the collector, and the open page while the server that has it on is
    measured."""

    def __init__(self, parts: list[str], on_url: str, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self._parts, self._on_url, self._port = parts, on_url, port
        self._measured, self._over = threading.Event(), threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self._thread.start()
        self._ready.wait(10)
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(30)

    def cell_started(self, spec: CellSpec) -> None:
        if spec.subject == ON:
            self._measured.set()

    def cell_finished(self, spec: CellSpec, error: str | None) -> None:
        self._measured.clear()
        super().cell_finished(spec, error)

    async def _watch(self) -> None:
        runner = web.AppRunner(self._collector())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        self._ready.set()
        async with aiohttp.ClientSession(trust_env=False) as session:
            while not self._over.is_set():
                if "ui" in self._parts and self._measured.is_set():
                    await self._look(session)
                await asyncio.sleep(UI_S)
        await asyncio.sleep(6 if "tracing" in self._parts else 0)  # the last spans are on their way
        await runner.cleanup()

    async def _look(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self._on_url}{UI_PATH}", params={"since": "0"}) as response:
            response.raise_for_status()
            await response.read()
        self.seen[f"answers of {UI_PATH}"] += 1

    def _collector(self) -> web.Application:
        """Takes everything and keeps nothing."""

        async def take(request: web.Request) -> web.Response:
            self.seen["bytes of spans"] += len(await request.read())
            return web.Response(content_type="application/x-protobuf")

        app = web.Application()
        app.router.add_post("/v1/traces", take)
        return app


def measure(urls: dict[str, str], watchers: Watchers, pairs: int, seed: int, out: Path) -> Store:
    given = {
        "targets": ["url:on", "url:off"],
        "concurrency": [STREAMS],
        "prompt_tokens": [40],
        "output_tokens": [96],
        "requests_per_user": 1,
        "seed": seed,
    }
    asked = plan.versus(["unique"], given, pairs)
    with watchers.watching():
        store = execute(prepare(asked, Places(at=urls)), out, watchers, resume=True)
    store.pack()
    return store


def judge(store: Store) -> Paired | None:
    """Throughput of the server that has it on over that of the other."""
    summary = summarize([store])
    on, off = (next(r for r in summary.results if r.subject == name) for name in (ON, OFF))
    return paired(on, off, "output_tps", summary.slos)


def request_lines(log: Path) -> int:
    return sum('"event":"request"' in line for line in log.read_text().splitlines())


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--pairs", default=20, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--on", default=",".join(PARTS), show_default=True, help="What is on, with commas.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/observability"))
def main(model: Path, pairs: int, threads: int, on: str, seed: int, out: Path) -> None:
    wanted = [part for part in on.split(",") if part]
    if unknown := set(wanted) - set(PARTS):
        raise click.UsageError(f"--on {min(unknown)}: there is {', '.join(PARTS)}")
    (parts, missing), port = available(wanted), processes.free_port()
    collector, logs = f"http://127.0.0.1:{port}", out / "logs"
    with contextlib.ExitStack() as stack:
        urls = {}
        for name, own in ((ON, parts), (OFF, [])):
            extra = {"rllm": switches(own, collector)}
            settings = Settings(slots=STREAMS, ctx_per_slot=CTX, threads=threads, extra=extra)
            log = logs / f"{name.partition('/')[2]}.log"
            server = stack.enter_context(running(Rllm("model", model), settings, log, ()))
            urls[name] = server.launch.endpoint.base_url
        watchers = Watchers(parts, urls[ON], port)
        store = measure(urls, watchers, pairs, seed, out)
    seen = {"on": parts, "missing": missing, **watchers.seen, "request lines": request_lines(logs / "on.log")}
    (out / "seen.json").write_text(json.dumps(seen, indent=1))
    click.echo(f"seen: {seen}; report: {render([out], out, say=click.echo)}")
    found = judge(store)
    sys.exit(0 if found is not None and found.interval is not None and found.interval.low > GOAL else 1)


if __name__ == "__main__":
    main()
