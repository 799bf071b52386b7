"""What guessing tokens ahead brings, by task: rllm-serve with and without, llama-server with and without.

    python bench/speculation.py [--pairs 5] [--tokens 7] [--tasks chat,copy] [--users 1,4] [--out DIR]

Whether guesses from the text itself are right depends on what is asked. Four tasks, greedy, up to 96 tokens
out, ending where the model ends:

    chat       questions that are answered freely
    summarize  a passage of about 120 words, to be told shorter
    copy       the same passage, to be repeated with one word replaced
    words      100 random words, as in the other benchmarks; small models then go in circles, which flatters

Servers take turns in shuffled order and are started afresh for every pair. TPOT is (last - first token) /
(tokens - 1) of a request, its median over the requests; the figures are medians over the pairs, the ratio is
that of the pairs, with its 95 % interval. "per step" is how many tokens a sequence got from a decode step of
rllm that guesses; "same text" how many of its answers are, to the letter, those of rllm that does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import click
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from tabulate import tabulate

from rllm_bench.load.client import Endpoint
from rllm_bench.records import environment
from rllm_bench.records.runs import Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.targets.llama_server import LlamaServer
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running
from versus_llama_server import Answer, Asker, client, compared, must_succeed, random_words, shuffled

OUT, CTX, SLOTS, PER_USER = 96, 2048, 16, 3
TEXT = Path(__file__).parent / "rllm_bench" / "quality" / "data" / "wiki.test.raw"
QUESTIONS = (
    "Write a short story about a dog who finds a key.",
    "Explain how a queue works in computer science.",
    "List five tips for saving energy at home.",
    "Write a Python function that adds up the even numbers of a list, and explain it.",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Describe the water cycle to a child.",
    "Write an email to my boss that asks for a day off.",
    "Compare cats and dogs as pets.",
    "What are the main causes of inflation?",
    "How does a bicycle stay upright?",
    "What should I see in Rome in two days?",
)


TASKS = ("chat", "summarize", "copy", "words")


@dataclass
class Tasks:
    vocabulary: Vocabulary
    passages: list[str]

    def prompt(self, task: str, rng: random.Random) -> str:
        nonce = f"({rng.randrange(10**6)}) "  # no server has seen it before
        if task == "chat":
            return nonce + rng.choice(QUESTIONS)
        if task == "summarize":
            return f"{nonce}Summarize this text in two sentences:\n\n{rng.choice(self.passages)}"
        if task == "copy":
            passage = rng.choice(self.passages)
            word = rng.choice([word for word in passage.split() if word.isalpha() and len(word) > 4])
            return f'{nonce}Repeat this text exactly, but write "XX" for "{word}":\n\n{passage}'
        return random_words(self.vocabulary, 100, rng)


def passages(words: int = 120) -> list[str]:
    """Beginnings of the paragraphs that are long enough, without the corpus's marks."""
    found = []
    for line in TEXT.read_text().splitlines():
        for mark, plain in (
            (" @-@ ", "-"),
            (" @,@ ", ","),
            (" @.@ ", "."),
            (" , ", ", "),
            (" . ", ". "),
        ):
            line = line.replace(mark, plain)
        own = line.split()
        if len(own) >= words and not line.startswith(" ="):
            found.append(" ".join(own[:words]))
    return found


async def measure(
    endpoint: Endpoint, tasks: Tasks, task: str, users: int, rng: random.Random
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures, and the answers by prompt."""
    prompts = [tasks.prompt(task, rng) for _ in range(max(6, PER_USER * users))]
    answers: list[Answer] = []
    texts: dict[str, str] = {}
    # no ignore_eos: the model ends where it ends
    asked = msgspec.structs.replace(endpoint, body={}, prompt_format="text" if task == "words" else "chat")
    async with client() as session:
        asker = Asker(session, asked, tasks.vocabulary)

        async def user() -> None:
            while prompts:
                prompt = prompts.pop()
                answers.append(await asker.ask(prompt, OUT))
                texts[prompt] = answers[-1].text

        before = await counted(session, endpoint)
        began = time.monotonic()
        await asyncio.gather(*(user() for _ in range(users)))
        seconds = time.monotonic() - began
        after = await counted(session, endpoint)
    must_succeed(answers)
    several = [answer for answer in answers if answer.tokens > 1]
    decoded = after["rllm_decode_tokens_total"] - before["rllm_decode_tokens_total"]
    accepted = after["rllm_accepted_tokens_total"] - before["rllm_accepted_tokens_total"]
    figures = {
        "tok/s": sum(answer.tokens for answer in answers) / seconds,
        "TPOT ms": 1e3 * statistics.median((a.times[-1] - a.times[0]) / (a.tokens - 1) for a in several),
        "per step": (decoded + accepted) / decoded if decoded else 0.0,
    }
    return figures, texts


async def counted(session: aiohttp.ClientSession, endpoint: Endpoint) -> dict[str, float]:
    """rllm's counters of decoded and accepted tokens; nothing from another server."""
    found = {"rllm_decode_tokens_total": 0.0, "rllm_accepted_tokens_total": 0.0}
    async with session.get(f"{endpoint.base_url}/metrics") as response:
        text = await response.text()
    if "rllm_" in text:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in found:
                    found[sample.name] += sample.value
    return found


@contextlib.contextmanager
def servers(model: Path, tokens: int, threads: int | None, logs: Path) -> Iterator[dict[str, Endpoint]]:
    theirs = ["--spec-type", "ngram-simple"]
    short = [*theirs, "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", str(tokens)]
    wanted = {
        "rllm guessing": (Rllm("m", model), [f"--speculative-tokens={tokens}"]),
        "rllm": (Rllm("m", model), []),
        "llama-server": (LlamaServer("m", model), []),
        "llama-server ngram": (LlamaServer("m", model), theirs),
        "llama-server ngram short": (LlamaServer("m", model), short),
    }
    with contextlib.ExitStack() as stack:
        up = {}
        for name, (target, extra) in wanted.items():
            if target.missing():
                click.echo(f"{name}: {target.missing()}", err=True)
                continue
            settings = Settings(slots=SLOTS, ctx_per_slot=CTX, threads=threads, extra={target.engine: extra})
            log = logs / f"{name.replace(' ', '-')}.log"
            up[name] = stack.enter_context(running(target, settings, log, ())).launch.endpoint
        yield up


def table(found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """A row for each task and number of users: TPOT of all servers, and what guessing makes of rllm's."""
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    lines = []
    for cell, rows in found.items():
        own = [row["TPOT ms"] for row in rows["rllm guessing"]]
        medians = {name: statistics.median(row["TPOT ms"] for row in rows[name]) for name in names}
        best = min(
            (name for name in names if not name.startswith("rllm")), key=medians.__getitem__, default=""
        )
        same = statistics.mean(row["same text"] for row in rows["rllm guessing"])
        per_step = statistics.median(row["per step"] for row in rows["rllm guessing"])
        ratios = []
        for other in ("rllm", best):
            ratio, interval = compared(own, [row["TPOT ms"] for row in rows[other]]) if other else ("–", "–")
            ratios.append(f"{ratio} [{interval}]")
        lines.append(
            (
                cell,
                *(f"{medians[name]:.1f}" for name in names),
                f"{per_step:.2f}",
                f"{same:.0%}",
                *ratios,
                best,
            )
        )
    head = [
        "task, users",
        *names,
        "per step",
        "same text",
        "over rllm",
        "over the best llama-server",
        "which",
    ]
    return tabulate(lines, head, tablefmt="github", disable_numparse=True)


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--pairs", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--tokens", default=7, show_default=True, help="Most guesses for a sequence in a step.")
@click.option("--tasks", default=",".join(TASKS), show_default=True)
@click.option("--users", default="1,4,16", show_default=True)
@click.option("--threads", default=2, show_default=True, help="0: let the servers choose.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    model: Path, pairs: int, tokens: int, tasks: str, users: str, threads: int, seed: int, out: Path
) -> None:
    if unknown := set(tasks.split(",")) - set(TASKS):
        raise click.BadParameter(
            f"no task {', '.join(sorted(unknown))}; there is {', '.join(TASKS)}", param_hint="--tasks"
        )
    if not all(count.isdecimal() and int(count) for count in users.split(",")):
        raise click.BadParameter(f"{users!r} must be numbers from 1, with commas", param_hint="--users")
    out.mkdir(parents=True, exist_ok=True)
    wanted = Tasks(from_gguf(model), passages())
    began = datetime.now(UTC).isoformat(timespec="seconds")
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for pair in range(pairs):
        click.echo(f"pair {pair + 1} ...", err=True)
        with servers(model, tokens, threads or None, Path(".cache") / "speculation-logs") as endpoints:
            for name, endpoint in endpoints.items():  # steps of some sizes are known before it counts
                for count in (6, 1):
                    asyncio.run(
                        measure(endpoint, wanted, "words", count, random.Random(f"warm-{name}-{pair}"))
                    )
            for task in tasks.split(","):
                for count in map(int, users.split(",")):
                    cell = f"{task}, {count}"
                    texts: dict[str, dict[str, str]] = {}
                    for name in shuffled(endpoints, f"{seed}-{cell}-{pair}"):
                        rng = random.Random(f"{seed}-{cell}-{pair}")  # the same prompts for everybody
                        figures, texts[name] = asyncio.run(measure(endpoints[name], wanted, task, count, rng))
                        rows = found.setdefault(cell, {server: [] for server in endpoints})
                        rows[name].append(figures)
                    for name, own in texts.items():
                        same = sum(own[prompt] == text for prompt, text in texts["rllm"].items())
                        found[cell][name][-1]["same text"] = same / len(own)
        about = {
            "began": began,
            "settings": f"{SLOTS} slots of {CTX} tokens, threads {threads}, {tokens} guesses, seed {seed}",
            "peer": LlamaServer("m", model).version(),
            "environment": environment.describe(),
            "model": {"name": model.name, "sha256": environment.sha256(model)},
        }
        (out / "speculation.json").write_text(json.dumps({**about, "found": found}, indent=1))
        commit = about["environment"].get("git", {}).get("commit", "unknown")[:12]
        text = f"# Guessing tokens ahead: TPOT in ms\n\n{table(found)}\n\n"
        text += f"{model.name}, begun {began}, {pair + 1} pairs, {about['settings']}, commit {commit}; "
        text += f"llama-server: {about['peer']}\n"
        (out / "report.md").write_text(text)
    click.echo((out / "report.md").read_text())


if __name__ == "__main__":
    main()
