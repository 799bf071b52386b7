"""Questions to a running server and what came back, for rows that fit on a line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

PROMPT = "Hello, my name is"
MESSAGES = [{"role": "user", "content": "What is the best book?"}]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
KEY = "sk-of-the-tests"
ORIGIN = "http://web.example"


@dataclass(frozen=True)
class Server:
    """Where one listens. Every question is a connection of its own."""

    port: int
    key: str | None = None

    def request(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, timeout_s: float = 30) -> Answer:
        """``body``: JSON, or the bytes themselves. A key is sent unless the headers have one."""
        sent = {"authorization": f"Bearer {self.key}"} if self.key else {}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            sent["content-type"] = "application/json"
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, data, {name: value for name, value in sent.items() if value})
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read().decode())
        finally:
            connection.close()

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.request("POST", path, body, headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, headers)

    def text(self, **fields: Any) -> Answer:
        """A completion of a few tokens."""
        return self.post(TEXT, {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, **NO_END, **fields})

    def chat(self, **fields: Any) -> Answer:
        """A chat completion of a few tokens."""
        return self.post(CHAT, {"messages": MESSAGES, "max_tokens": 5, "temperature": 0, **NO_END, **fields})

    def openai(self, path: str = "/v1") -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}{path}"
        return openai.OpenAI(base_url=url, api_key=self.key or "none", max_retries=0, timeout=30)


NO_END = {"ignore_eos": True}
"""The random model of the tests may end an answer anywhere."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def __getitem__(self, path: str) -> Any:
        """``answer["choices.0.message.content"]``"""
        return dig(self.json, path)

    @property
    def choice(self) -> dict[str, Any]:
        """The only one."""
        (choice,) = self.json["choices"]
        return dict(choice)

    @property
    def frames(self) -> list[str]:
        """The data of every event."""
        return [part.removeprefix("data: ") for part in self.text.split("\n\n") if part.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        assert self.status == 200, self.text
        assert self.frames[-1] == "[DONE]"
        return [json.loads(frame) for frame in self.frames[:-1]]

    def pieces(self, index: int = 0) -> list[dict[str, Any]]:
        """The parts of one choice of a stream."""
        parts = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return [choice for choice in parts if choice["index"] == index]

    def streamed(self, index: int = 0) -> str:
        parts = self.pieces(index)
        return "".join(p["text"] if "text" in p else p["delta"].get("content") or "" for p in parts)

    @property
    def usages(self) -> list[dict[str, Any] | None]:
        return [chunk.get("usage") for chunk in self.chunks]


def dig(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


Ask = Callable[[Server], Answer]
Check = Callable[[Answer], object]
"""Fails by an assertion, an exception or the value False."""


def text(**fields: Any) -> Ask:
    return lambda server: server.text(**fields)


def chat(**fields: Any) -> Ask:
    return lambda server: server.chat(**fields)


def post(path: str, body: object, **headers: str) -> Ask:
    return lambda server: server.post(path, body, **headers)


def get(path: str, **headers: str) -> Ask:
    return lambda server: server.get(path, **headers)


# --- checks -------------------------------------------------------------------------------------------


def status(*codes: int) -> Check:
    def check(answer: Answer) -> None:
        assert answer.status in codes, f"{answer.status}: {answer.text[:300]}"

    return check


ok = status(200)


def refused(said: str = "", param: str | None = None, code: int = 400) -> Check:
    """An error in OpenAI's envelope."""

    def check(answer: Answer) -> None:
        status(code)(answer)
        error = answer.json["error"]
        assert error.keys() >= {"message", "type", "param", "code"}
        assert said in error["message"], error
        assert param is None or error["param"] == param, error

    return check


def equal(path: str, value: object) -> Check:
    def check(answer: Answer) -> None:
        ok(answer)
        assert answer[path] == value, f"{path}: {answer[path]!r}, not {value!r}"

    return check


def that(path: str, holds: Callable[[Any], bool]) -> Check:
    def check(answer: Answer) -> None:
        ok(answer)
        assert holds(answer[path]), f"{path}: {answer[path]!r}"

    return check
