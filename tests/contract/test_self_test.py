"""Nothing is ready that has not computed: what gives nonsense is refused by both backends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from rllm.backends.fake import FakeBackend
from rllm.backends.llama import self_test
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import FakeOptions, LlamaOptions
from rllm.errors import Miscomputed
from tests.cli.server import COMMAND, environment, running
from tests.tinymodel import write_tiny_mamba, write_tiny_model

NONSENSE = [("nan", float("nan")), ("constant", 0.0)]
SMALL = LlamaOptions(slots=2, ctx_per_slot=256, threads=1)


@pytest.mark.parametrize(("fault", "gain"), NONSENSE)
@pytest.mark.parametrize("kind", ["fake", "llama"])
def test_logits_that_mean_nothing_are_refused(kind: str, fault: str, gain: float, tmp_path: Path) -> None:
    def make() -> object:
        if kind == "fake":
            return FakeBackend(FakeOptions(self_test=fault))
        return LlamaBackend(write_tiny_model(tmp_path / "bad.gguf", output_gain=gain), SMALL)

    with pytest.raises(Miscomputed):
        make()


@pytest.mark.parametrize("kind", ["fake", "llama"])
def test_it_runs_within_a_limit(kind: str, tiny_model: Path) -> None:
    limits: list[float] = []

    @contextmanager
    def within(seconds: float) -> Iterator[None]:
        limits.append(seconds)
        yield
        limits.append(0.0)

    made = FakeBackend(within=within) if kind == "fake" else LlamaBackend(tiny_model, SMALL, within=within)
    with closing(made):
        assert len(limits) == 2
        assert 0 < limits[0] < 200


@pytest.mark.parametrize(
    "options",
    [
        LlamaOptions(slots=1, ctx_per_slot=16, threads=1, batch_size=1),
        LlamaOptions(slots=16, ctx_per_slot=16, threads=1),
        LlamaOptions(slots=8, ctx_per_slot=64, kv_cells=64, threads=1),
        LlamaOptions(slots=3, ctx_per_slot=256, kv="unified", threads=1, speculative_tokens=2),
    ],
)
def test_it_fits_the_smallest_settings_and_leaves_nothing_behind(
    options: LlamaOptions, tiny_model: Path
) -> None:
    with closing(LlamaBackend(tiny_model, options)) as backend:
        assert all(backend.inspect().context.length(seq) == 0 for seq in range(backend.info.num_sequences))


def test_a_recurrent_model_passes(tmp_path: Path) -> None:
    LlamaBackend(write_tiny_mamba(tmp_path / "mamba.gguf"), SMALL).close()


def test_it_computes_many_rows_a_few_several_sequences_and_one(tiny_model: Path) -> None:
    options = LlamaOptions(slots=4, ctx_per_slot=256, threads=1)
    with closing(LlamaBackend(tiny_model, options)) as backend:
        batches = list(self_test.batches(backend.inspect().context, options.slots))
    assert [[len(chunk.tokens) for chunk in chunks] for chunks in batches] == [[64], [4, 1, 1, 1], [1]]
    ends = {0: 0}
    for chunk in (chunk for chunks in batches for chunk in chunks):
        assert chunk.start == ends.get(chunk.seq, 0)
        ends[chunk.seq] = chunk.start + len(chunk.tokens)


def test_one_bad_row_of_several_is_enough() -> None:
    good = np.array([[1.0, 2.0], [2.0, 1.0]], dtype=np.float32)
    assert self_test.fault_of(good) is None
    for bad in ([0.0, np.inf], [np.nan, 1.0], [0.0, 0.0], [3.0, 3.0]):
        assert self_test.fault_of(np.array([[1.0, 2.0], bad], dtype=np.float32))


def test_a_large_model_is_given_more_time() -> None:
    assert self_test.limit_s(0) == 180
    assert self_test.limit_s(40 * 10**9) > 600


def test_alone_such_a_model_ends_the_server_with_one_line(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "bad.gguf", output_gain=float("nan"))
    command = [*COMMAND, "--gguf", str(model), "--port", "0", "--slots", "2", "--threads", "1"]
    command += ["--profile-dir", str(tmp_path / "profiles")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rllm-serve: ")]
    for words in ("bad-0 does not compute", "not finite", "with --repack off --flash-attn off", "RUNBOOK.md"):
        assert words in line
    assert not (tmp_path / "profiles").exists()


def test_beside_another_model_it_is_named_and_the_other_is_served(tmp_path: Path, tiny_model: Path) -> None:
    bad = write_tiny_model(tmp_path / "bad.gguf", output_gain=0.0)
    models = ("--gguf", bad, "--gguf", tiny_model, "--slots", "2", "--ctx-size", "512", "--threads", "1")
    with running(*models) as server:
        status, body = server.get("/health")
        assert status == 200
        assert b'"not_served":{"bad":' in body
        assert b"all equal" in body
        assert str(tmp_path).encode() not in body
        assert b"NOT SERVED: bad" in "\n".join(server.lines).encode()
        assert server.start_stream(max_tokens=4).read().rstrip().endswith(b"data: [DONE]")
    with running(*models, "--require-all", wait=False) as server:
        assert server.exit_code() == 1
