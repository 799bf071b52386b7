"""Every metric of dashboard and rules is on the page of a real server, with the labels it is selected by."""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp

from rllm.observe.gpu import Gpus
from rllm.observe.metrics import Metrics
from tests.chaos.asking import ask, body
from tests.chaos.servers import rllm
from tests.http.fake_service import model_info
from tests.monitoring.expressions import Served, everything, labels_in, metrics_in, served
from tests.monitoring.tools import needs_prometheus, promtool
from tests.unit.test_metrics import FakeNvml

OPTIONS = ("--slots", 2, "--ctx-size", 256, "--threads", 1, "--replicas", 2)


async def page(model: Path) -> str:
    """/metrics after a few requests, one of them refused and one wrong."""
    async with aiohttp.ClientSession() as http, rllm(http, "--gguf", model, *OPTIONS) as server:
        for stream in (True, False):
            assert (await ask(http, server.url, body("hello", 8, stream=stream))).is_whole
        assert (await ask(http, server.url, body("hello", -2))).status == 400
        async with http.get(server.url + "/metrics") as response:
            return await response.text()


def with_gpu() -> Served:
    """The page of a machine with a card, which only a fake can show here."""
    metrics = Metrics(Gpus(FakeNvml()))
    metrics.on_ready("m", "m-0", model_info(), os.getpid())
    return served(metrics.render().decode())


async def test_every_metric_and_label_exists_on_a_real_server(tiny_model: Path) -> None:
    real = served(await page(tiny_model))
    wanted = metrics_in(everything())
    assert len(wanted) > 40
    gpu = {name for name in wanted if name.startswith("rllm_gpu_")}
    assert wanted - gpu - real.names == set()
    assert gpu <= with_gpu().names
    wrong = {
        (name, label)
        for name, label in labels_in(everything())
        if label not in real.labels.get(name, {label})
    }
    assert wrong == set()


@needs_prometheus
async def test_promtool_finds_nothing_wrong_with_the_metrics(tiny_model: Path) -> None:
    status, said = promtool("check", "metrics", text=await page(tiny_model))
    assert (status, said.strip()) == (0, "")
