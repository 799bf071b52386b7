"""The loop of `rllm-serve top`: look, show, wait."""

from __future__ import annotations

import contextlib
import time

from rich.console import Console
from rich.live import Live

from rllm.top.frame import frame
from rllm.top.history import History
from rllm.top.scrape import ScrapeError, Scraper


def show_once(scraper: Scraper, console: Console) -> None:
    """
    Raises:
        ScrapeError: there is nothing to show.
    """
    history = History()
    history.add(scraper.read())
    console.print(frame(history, scraper.url))


def watch(scraper: Scraper, console: Console, interval_s: float) -> None:
    """Until Ctrl-C. A server that goes away is waited for, its last numbers shown meanwhile.

    Raises:
        ScrapeError: it was not there when we began.
    """
    history = History()
    history.add(scraper.read())
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        trouble: str | None = None
        while True:
            live.update(frame(history, scraper.url, trouble), refresh=True)
            time.sleep(interval_s)
            try:
                history.add(scraper.read())
                trouble = None
            except ScrapeError as error:
                trouble = str(error)
