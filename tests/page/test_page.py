"""The live page in a real browser, on a real server with two tiny models."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.server import RunningServer, running
from tests.page.conftest import Visit, visit
from tests.page.traffic import Body, traffic

OPTIONS = ("--slots", "3", "--ctx-size", "8192", "--threads", "1")
DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    models = ("--gguf", tiny_model, "--alias", "one", "--gguf", tiny_model, "--alias", "two")
    with running(*models, *OPTIONS) as started:
        yield started


def address(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_the_api_is_documented_and_tried_with_nothing_from_elsewhere(
    browser: Any, server: RunningServer
) -> None:
    with visit(browser, address(server), path="/docs") as tab:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.reload()
        tab.page.click("#operations-models-models_v1_models_get")
        tab.page.click(".try-out__btn")
        tab.page.click(".execute")
        assert '"id": "two"' in tab.text(".live-responses-table")
    assert len(asked) > 4
    assert all(url.startswith((f"{address(server)}/", "data:")) for url in asked)


def endless(rng: random.Random) -> Body:
    return {
        "model": "one",
        "messages": [{"role": "user", "content": f"{rng.random()} go on"}],
        "max_tokens": 7000,
        "ignore_eos": True,
        "stream": True,
    }


def without_an_end(route: Any) -> None:
    """The tiny model would stop by itself too soon to be watched."""
    route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), "ignore_eos": True}))


def ask(tab: Visit, text: str, max_tokens: int = 40) -> None:
    tab.page.locator("summary").click()
    tab.page.get_by_label("Max tokens").fill(str(max_tokens))
    tab.page.get_by_label("Temperature").fill("0")
    tab.page.locator("summary").click()
    tab.page.get_by_label("Message").fill(text)
    tab.page.get_by_label("Message").press("Enter")


def test_under_load_the_lanes_move_and_the_verdict_names_the_limit(
    browser: Any, server: RunningServer
) -> None:
    with visit(browser, address(server)) as tab, traffic(server.port, 5, endless):
        panel = tab.page.locator(".panel").first
        tab.wait(
            "document.querySelectorAll('.panel')[0]?.querySelectorAll(\"[data-phase='decode']\").length === 3"
        )
        before = panel.locator(".says").all_inner_texts()
        tab.wait(
            "old => [...document.querySelectorAll('.panel')[0].querySelectorAll('.says')]"
            ".every((lane, i) => lane.textContent !== old[i] && lane.textContent.startsWith('decode'))",
            before,
        )
        tab.wait("document.querySelector('#headline').textContent.startsWith('Slots are the limit')")
        assert "3 of 6 slots" in tab.text("#detail")
        assert "2 waiting" in panel.locator(".queue").inner_text()
        tab.wait("parseFloat(document.querySelector('.card .value b').textContent) > 0")
        tab.wait("document.querySelector('#cards canvas').getAttribute('aria-label').includes('tok/s')")
        for canvas in ("#cards canvas", ".lane canvas"):
            assert tab.page.locator(canvas).first.evaluate(DRAWN)
    assert_goes_idle(browser, server)


def assert_goes_idle(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server)) as tab:
        tab.wait("document.querySelector('#headline').textContent.startsWith('Healthy and idle')")


def test_an_answer_streams_with_its_figures_and_its_lane_is_marked(
    browser: Any, server: RunningServer
) -> None:
    with visit(browser, address(server)) as tab, traffic(server.port, 2, endless):
        tab.is_live()
        tab.page.route("**/v1/chat/completions", without_an_end)
        ask(tab, "hello", max_tokens=7000)
        tab.page.wait_for_selector(".answer[data-state='streaming']")
        early = len(tab.text(".answer .text"))
        tab.wait("early => document.querySelector('.answer .text').textContent.length > early", early)
        tab.wait("import('/ui/lanes.js').then(lanes => lanes.mine.size === 1)")
        tab.page.get_by_role("button", name="Stop").click()
        tab.page.wait_for_selector(".answer[data-state='stopped']")
        tab.page.unroute("**/v1/chat/completions")
        ask(tab, "again", max_tokens=40)
        tab.page.wait_for_selector(".answer[data-state='done']")
        figures = tab.page.locator(".answer .figures").last.inner_text()
        for words in ("first token", "tok/s", "tokens", "prompt"):
            assert words in figures
    assert_goes_idle(browser, server)  # who stops an answer frees its slot


def test_two_models_answer_side_by_side(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server)) as tab:
        tab.is_live()
        tab.page.get_by_label("Compare with").check()
        assert tab.page.get_by_label("Second model").input_value() == "two"
        ask(tab, "the same question")
        tab.wait("document.querySelectorAll(\".answer[data-state='done']\").length === 2")
        assert [side.split()[-1] for side in tab.page.locator(".side h3").all_inner_texts()] == ["one", "two"]
        texts = tab.page.locator(".answer .text").all_inner_texts()
        assert texts[0] == texts[1] != ""  # the same file, greedy
        boxes = [side.bounding_box() for side in tab.page.locator(".side").all()]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        tab.page.wait_for_selector("#comparison:not([hidden])")
        tab.page.get_by_role("button", name="New chat").click()
        assert tab.page.locator(".answer").count() == 0


def test_what_the_server_refuses_is_said_in_its_words(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server)) as tab:
        tab.is_live()
        ask(tab, "x" * 9000)  # longer than the context
        tab.page.wait_for_selector(".answer[data-state='failed']")
        assert "8192" in tab.text(".answer .figures")
        tab.complaints.clear()  # the browser notes the status 400


def test_a_lost_worker_is_seen(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server)) as tab:
        tab.is_live()
        worker = next(w for w in server.workers() if "rllm.workers" in " ".join(w.cmdline()))
        worker.send_signal(signal.SIGKILL)
        tab.wait(
            "[...document.querySelectorAll('.panel .badges li')].some(b => b.textContent === '1 restart')"
        )
        tab.wait("[...document.querySelectorAll('.panel')].every(p => p.dataset.state === 'ready')")


def troubled(route: Any) -> None:
    """The real answer, with troubles that do not happen here."""
    response = route.fetch()
    state = response.json()
    card = {"index": 0, "name": "H100", "memory_used_bytes": 20 * 2**30, "memory_total_bytes": 80 * 2**30}
    state["gpus"] = [{**card, "utilization_ratio": 0.5, "power_w": 300.0, "temperature_c": None}]
    state["rejections"] = {"server_is_overloaded": 1234}
    state["models"][0] |= {"degradation_level": 2, "degradation": "max_tokens<=64", "parked": 3}
    state["models"][0]["instances"][0] |= {
        "breaker": "open",
        "breaker_reopens_s": 4.0,
        "snapshot_age_s": 12.0,
    }
    route.fulfill(response=response, json=state)


def test_troubles_and_a_gpu_are_shown(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server), width=390) as tab:
        tab.page.route("**/v1/rllm/state*", troubled)
        tab.page.wait_for_selector(".card.gpu")
        assert "0 H100 50 % busy, 20.0 GiB of 80.0 GiB, 300 W" in tab.text(".card.gpu")
        assert "1,234 refused: server is overloaded" in tab.text("#badges")
        assert "3 waiting for a worker" in tab.text("#badges")
        badges = tab.page.locator(".panel .badges").first.inner_text()
        for words in ("breaker open, tries again in 4.00 s", "level 2: max_tokens<=64", "as of 12.0 s ago"):
            assert words in badges
        assert tab.page.evaluate(OVERFLOW) <= 0
        tab.page.unroute_all(behavior="wait")


def test_in_a_unified_cache_there_are_as_many_lanes_as_slots(browser: Any, tiny_model: Path) -> None:
    """Although there are four times as many sequence ids."""
    decoding = "document.querySelectorAll(\".lane[data-phase='decode']\").length"
    with (
        running("--gguf", tiny_model, "--alias", "one", "--kv", "unified", *OPTIONS) as unified,
        visit(browser, address(unified)) as tab,
        traffic(unified.port, 5, endless),
    ):
        tab.wait(f"{decoding} === 3")
        assert tab.page.locator(".lane").count() == 3


def test_nothing_is_asked_while_the_tab_is_hidden(browser: Any, server: RunningServer) -> None:
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); }"
    )
    asked: list[str] = []
    with visit(browser, address(server)) as tab:
        tab.is_live()
        tab.page.evaluate(hide, True)
        tab.page.wait_for_selector('#link[data-state="paused"]')
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.wait_for_timeout(2500)  # two and a half periods
        assert asked == []
        tab.page.evaluate(hide, False)
        tab.is_live()
        assert any("/v1/rllm/state" in url for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits(browser: Any, server: RunningServer, width: int, scheme: str) -> None:
    with visit(browser, address(server), width=width, height=844, scheme=scheme) as tab:
        tab.is_live()
        tab.page.get_by_label("Compare with").check()
        ask(tab, "x" * 300, max_tokens=30)
        tab.wait("document.querySelectorAll(\".answer[data-state='done']\").length === 2")
        assert tab.page.evaluate(OVERFLOW) <= 0
        ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(14, 17, 22)") == (scheme == "dark")


def test_every_control_has_a_name_and_the_keyboard_reaches_it(browser: Any, server: RunningServer) -> None:
    with visit(browser, address(server)) as tab:
        tab.is_live()
        unnamed = tab.page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')]"
            ".filter(e => !e.labels.length && !e.ariaLabel).map(e => e.id)"
        )
        assert unnamed == []
        reached = set()
        for _ in range(40):
            tab.page.keyboard.press("Tab")
            reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert {"model-a", "compare", "SUMMARY", "message", "send", "clear"} <= reached


def test_a_key_is_asked_for_checked_and_kept_in_the_tab_only(browser: Any, tiny_model: Path) -> None:
    with (
        running("--gguf", tiny_model, *OPTIONS, RLLM_API_KEY="s3cret") as locked,
        visit(browser, address(locked)) as tab,
    ):
        dialog = tab.page.get_by_role("dialog")
        dialog.wait_for()
        assert "API key" in dialog.inner_text()
        tab.page.locator("#key").fill("wrong")
        dialog.get_by_role("button", name="Use this key").click()
        tab.page.wait_for_selector("#key-reason:not([hidden])")
        assert "Incorrect API key" in tab.text("#key-reason")
        tab.page.locator("#key").fill("s3cret")
        tab.page.locator("#key").press("Enter")
        tab.is_live()
        ask(tab, "hello")
        tab.page.wait_for_selector(".answer[data-state='done']")
        assert tab.page.evaluate(
            "[localStorage.length, document.cookie, sessionStorage.getItem('rllm-key')]"
        ) == [
            0,
            "",
            "s3cret",
        ]
        tab.page.reload()
        tab.is_live()
        tab.page.get_by_role("button", name="API key").click()
        dialog.get_by_role("button", name="Forget it").click()
        dialog.wait_for()
        assert tab.page.evaluate("sessionStorage.length") == 0
        tab.complaints.clear()  # the browser notes every status 401


def test_a_server_that_has_gone_is_said_to_be_gone(browser: Any, tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *OPTIONS) as server, visit(browser, address(server)) as tab:
        tab.is_live()
        server.signal(signal.SIGINT)
        server.exit_code()
        tab.page.wait_for_selector('#link[data-state="lost"]')
        assert "does not answer" in tab.text("#headline")
        tab.complaints.clear()
