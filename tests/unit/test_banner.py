"""What the operator reads when the server is ready names everything that is not as it was asked for."""

from __future__ import annotations

import msgspec

from rllm.backends.fake import FakeBackend, FakeVocabulary
from rllm.backends.options import Fallback
from rllm.serving.service import Health, ServedModel
from rllm.startup.banner import banner
from rllm.startup.listening import Address


def text(health: Health, **buffers: int) -> str:
    info = msgspec.structs.replace(FakeBackend().info, buffers=buffers)
    model = ServedModel("m", (), 0, info, FakeVocabulary())
    addresses = [Address("http://127.0.0.1:8000")]
    return banner([model], health, addresses, 2, 2**30, with_key=False, with_page=False)


def test_fallbacks_what_was_measured_and_what_is_not_served_have_a_line_each() -> None:
    fallback = Fallback(options={"repack": "off"}, reason="was killed by signal 4 (SIGILL)")
    health = Health(True, "ok", (), (("m-0", fallback),), (("m-0", {"threads": 3}),), (("other", "why"),))
    lines = [line.strip() for line in text(health).splitlines()]
    assert "m-0 runs with --repack off; without: was killed by signal 4 (SIGILL)" in lines
    assert "m-0 runs with --threads 3: measured to be fastest here" in lines
    assert "NOT SERVED: other: why" in lines


def test_only_cards_are_places_of_their_own() -> None:
    shown = text(Health(True, "ok"), **{"CUDA0 KV": 2**30, "AMX model": 2**30, "CPU_REPACK model": 2**30})
    assert "each instance on CUDA0: KV 1.00 GiB" in shown
    assert "on AMX" not in shown
    assert "on CPU_REPACK" not in shown
