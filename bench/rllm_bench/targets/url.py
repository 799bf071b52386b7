"""Any OpenAI-compatible server that is running already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import PromptFormat, Settings
from rllm_bench.targets.base import Launch, ignore_eos


@dataclass(frozen=True)
class Url:
    url: str
    variant: str = "served"
    served_model: str = ""
    prompt_format: PromptFormat = "ids"
    api_key: str | None = None
    """Sent, and never written to a record."""
    engine: str = "url"
    model: Path | None = None

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "unknown"

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        endpoint = Endpoint(
            base_url=self.url.rstrip("/").removesuffix("/v1"),
            model=self.served_model,
            prompt_format=self.prompt_format,
            body=ignore_eos(),
            headers=headers,
        )
        notes = ("its slots, context and threads are not ours to set; nor is it stopped between repeats",)
        return Launch(endpoint=endpoint, ready_timeout_s=30, notes=notes)
