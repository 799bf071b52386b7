"""lm-evaluation-harness, by the log-probabilities of prompts, against the sums of `rllm-bench quality`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rllm.backends.llama.logits import LogitModel
from rllm_bench.quality.choice import sentence_scores
from rllm_bench.quality.datasets import EvaluationData
from rllm_bench.quality.model import context_token
from tests.cli.server import running
from tests.clients.conftest import fetched, run

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(900)]

ITEMS = 50
TASK = """\
task: sentences
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: loglikelihood
doc_to_text: ""
doc_to_target: "{{{{sentence}}}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
"""


def test_loglikelihoods_are_those_of_quality(q8_model: Path, tmp_path: Path) -> None:
    sentences = [pair.good for pair in EvaluationData().pairs()][:ITEMS]
    own, prefix = _own_sums(q8_model, sentences)
    told = _lm_eval(q8_model, sentences, prefix, tmp_path)
    assert len(told) == ITEMS
    assert told == pytest.approx(own, abs=1e-3)


def _own_sums(model_path: Path, sentences: list[str]) -> tuple[list[float], int]:
    with (
        LogitModel(model_path, num_ctx=512, num_sequences=4, threads=1) as model,
        ThreadPoolExecutor(2) as pool,
    ):
        tokens = [
            model.vocabulary.tokenize(text, add_special=False, parse_special=False) for text in sentences
        ]
        sums: list[float] = []
        for start in range(0, len(tokens), model.num_sequences):
            sums += sentence_scores(model, tokens[start : start + model.num_sequences], pool)
        return sums, context_token(model.vocabulary)


def _lm_eval(model_path: Path, sentences: list[str], prefix: int, folder: Path) -> list[float]:
    """A local file as a task; the server tokenizes."""
    data = folder / "sentences.jsonl"
    data.write_text("".join(json.dumps({"sentence": text}) + "\n" for text in sentences))
    (folder / "sentences.yaml").write_text(TASK.format(data=data))
    with running("--gguf", model_path, "--alias", "q8") as server:
        url = f"http://127.0.0.1:{server.port}/v1/completions"
        model = (
            f"model=q8,base_url={url},tokenizer_backend=remote,custom_prefix_token_id={prefix},max_retries=1"
        )
        run(
            *(fetched("lmeval") / "bin" / "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", model, "--tasks", "sentences", "--include_path", folder),
            *("--log_samples", "--output_path", folder / "out"),
            env={"HF_HOME": str(folder / "hf")},
            timeout_s=600,
        )
    (samples,) = (folder / "out").rglob("samples_*.jsonl")
    found = {
        one["doc_id"]: one["resps"][0][0][0] for one in map(json.loads, samples.read_text().splitlines())
    }
    return [float(found[index]) for index in range(len(sentences))]
