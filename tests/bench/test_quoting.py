"""What stands beside an answer: what the files hold, what the peers are, and what was not the same."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rllm_bench.figures.compare import differences
from rllm_bench.figures.summary import Summary
from rllm_bench.records import environment
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.report.plots import Look
from rllm_bench.report.quoting import to_know
from rllm_bench.report.sources import Sources
from rllm_bench.run.subjects import describe
from rllm_bench.targets.rllm import Rllm
from tests.bench.test_answer import summary


def with_subject(**known: Any) -> Summary:
    found = summary()
    subject = Subject(name="rllm/q4", engine="rllm", variant="q4", version="1", **known)
    run = msgspec.structs.replace(
        found.runs[0], subjects=[subject], environment=machine(), created_at="2026-11-29"
    )
    return Summary([run], (), found.slos)


def machine(**more: Any) -> dict[str, Any]:
    cpu = {"model": "A", "cores_usable": 2, "cores_logical": 2, "features": ["avx2", "fma"]}
    packages = {"llama-cpp-python": "0.3.36"}
    return {"cpu": cpu, "memory_bytes": 2**30, "gpus": [], "packages": packages, **more}


def said(found: Summary) -> str:
    return "\n".join(to_know(Sources([], found, [], {})))


def test_a_mixture_is_told_what_it_holds() -> None:
    shares = {"Q5_0": 0.6, "Q8_0": 0.22, "Q4_K": 0.18}
    text = said(with_subject(model="models/q4.gguf", model_type="Q4_K_M", type_shares=shares))
    assert "`q4.gguf` calls itself Q4_K_M, and 18 % of its weights are Q4_K: 60 % Q5_0 and 22 % Q8_0" in text
    assert "llama-cpp-python 0.3.36 under rllm" in text


def test_an_engine_is_told_with_its_age_where_the_run_knows_it() -> None:
    found = with_subject()
    known = {"rllm 1": "2026-11-28", "llama-cpp-python 0.3.36": "2026-10-01"}
    text = said(changed(found.runs[0], environment=machine(released=known)))
    assert (
        "rllm 1 of 2026-11-28 (1 day old); under rllm llama-cpp-python 0.3.36 of 2026-10-01 (59 days old)"
        in text
    )
    assert "rllm 1 (of unknown age)" in said(changed(found.runs[0], environment=machine(released={})))
    assert "They tell their version, not their age" in said(found)


def test_the_day_of_the_pinned_binding_is_known() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (binding,) = (name for name in project["dependencies"] if name.startswith("llama-cpp-python=="))
    assert binding.replace("==", " ") in environment.released(None)


def test_a_file_that_is_what_it_says_is_not_told_so() -> None:
    text = said(with_subject(model_type="Q8_0", type_shares={"Q8_0": 0.99, "F32": 0.01}))
    assert "calls itself" not in text


def test_a_file_is_asked_what_it_holds(tiny_model: Path) -> None:
    found = describe(Rllm("q4", tiny_model), None)
    assert sum(found.type_shares.values()) == pytest.approx(1.0, abs=0.001)


def changed(run: RunRecord, **fields: Any) -> Summary:
    return Summary([msgspec.structs.replace(run, **fields)], (), {})


def test_whatever_was_not_the_same_is_named() -> None:
    old = with_subject(model_sha256="a" * 64)
    run = old.runs[0]
    other_cpu = {**machine()["cpu"], "features": ["avx2"]}
    now = changed(
        run,
        environment=machine(memory_bytes=2**31, cpu=other_cpu, packages={"llama-cpp-python": "0.4"}),
        subjects=[msgspec.structs.replace(run.subjects[0], version="2", model_sha256="b" * 64)],
    )
    text = "\n".join(differences(now, old))
    assert "other machines: 2 cores of A, 1 GiB, no GPU, now 2 cores of A, 2 GiB, no GPU" in text
    assert "other processor features: without fma, with none" in text
    assert "other versions: llama-cpp-python 0.3.36, now 0.4" in text
    assert "rllm/q4 is another version: 1, now 2" in text
    assert "another model file: sha256 aaaaaaaaaaaa, now bbbbbbbbbbbb" in text
    assert list(differences(old, old)) == []


def test_a_variant_looks_the_same_in_every_picture() -> None:
    """Whoever else is in it; and two that share engine and variant can be told apart."""
    alone, among = Look(["rllm/q8"]), Look(["llama-server/q4", "rllm/f16", "rllm/q4", "rllm/q8"])
    assert alone("rllm/q8") == among("rllm/q8")
    both = Look(["rllm/q4", "rllm/q4+kv=split"])
    assert both("rllm/q4")["color"] == both("rllm/q4+kv=split")["color"]
    assert both("rllm/q4")["ls"] != both("rllm/q4+kv=split")["ls"]
