"""rllm-bench capacity"""

from __future__ import annotations

from pathlib import Path

import click
from tabulate import tabulate

from rllm_bench.capacity.machines import Machine, Measured, machines
from rllm_bench.capacity.model import Forecast, Speeds, forecast, most_users

MOST = 256
"""Users that are tried: llama.cpp has no more sequences in a context."""


@click.command("capacity")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--machine", type=click.Choice(sorted(machines())), required=True, help="A machine that was measured."
)
@click.option(
    "--users", type=click.IntRange(1, MOST), default=8, show_default=True, help="Users at the same time."
)
@click.option("--prompt", type=click.IntRange(1), default=400, show_default=True, help="Tokens of a prompt.")
@click.option("--output", type=click.IntRange(1), default=128, show_default=True, help="Tokens of an answer.")
@click.option("--ctx-size", type=click.IntRange(1), help="Tokens of a slot.  [default: prompt and answer]")
@click.option("--ttft", type=float, default=2000.0, show_default=True, help="Target of the first token, ms.")
@click.option("--tpot", type=float, default=100.0, show_default=True, help="Target per further token, ms.")
@click.option("--memory-gb", type=float, help="Memory of the machine.  [default: that of the measured one]")
def command(
    model: Path,
    machine: str,
    users: int,
    prompt: int,
    output: int,
    ctx_size: int | None,
    ttft: float,
    tpot: float,
    memory_gb: float | None,
) -> None:
    """Forecast how many users MODEL holds on a machine: memory, speed, and the targets it keeps.

    An estimate from two or three measured loads; measure with `rllm-bench matrix` before you buy.
    """
    from rllm.files.gguf_info import kv_bytes_per_token, read_gguf
    from rllm.modelhub.quant_types import file_type_name

    info = read_gguf(model)
    known = machines()[machine]
    kind = file_type_name(info)
    if kind not in known.types:
        raise click.ClickException(f"{kind} was not measured on {machine}: {', '.join(known.types)} were")
    per_token = kv_bytes_per_token(info.metadata)
    if not per_token:
        raise click.ClickException(
            f"{model.name}: the header does not say what a token takes of the KV cache"
        )
    context = ctx_size or prompt + output
    if context < prompt + output:
        raise click.ClickException(f"--ctx-size {context}: less than --prompt {prompt} and --output {output}")
    measured = known.types[kind]
    speeds = measured.speeds().scaled(info.file_bytes, info.num_params)
    room = _memory(known, info.file_bytes, per_token, context, users, memory_gb or known.memory_gb)
    most = most_users(speeds, prompt, output, ttft, tpot, MOST)
    click.echo(_loads(speeds, known, info.file_bytes, prompt, output, users))
    click.echo(_answer(min(room, most), room, most, ttft, tpot))
    click.echo(_origin(known, measured, model))


def _memory(known: Machine, weights: int, per_token: int, context: int, users: int, memory_gb: float) -> int:
    """Prints the sum; returns how many users' slots fit."""
    slot = per_token * context / 1e9
    needed = weights / 1e9 + users * slot + known.compute_gb
    rows = [
        ("weights", f"{weights / 1e9:,.2f}"),
        (f"KV cache: {users} slots x {context:,} tokens x {per_token:,} bytes", f"{users * slot:,.2f}"),
        ("buffers, about", f"{known.compute_gb:,.2f}"),
        (f"needed of {memory_gb:g}", f"{needed:,.2f}"),
    ]
    click.echo(tabulate(rows, headers=("memory", "GB"), colalign=("left", "right"), disable_numparse=True))
    return max(0, int((memory_gb - weights / 1e9 - known.compute_gb) / slot))


def _loads(speeds: Speeds, known: Machine, weights: int, prompt: int, output: int, users: int) -> str:
    loads = sorted({1, users, *(n for n in (2, 4, 8, 16, 32, 64, 128) if n < users)})
    found: list[Forecast] = [forecast(speeds, n, prompt, output) for n in loads]
    rows = [(f.users, f"{f.tokens_per_s:,.0f}", f"{f.ttft_ms:,.0f}", f"{f.tpot_ms:,.1f}") for f in found]
    table = tabulate(
        rows,
        headers=("users", "tok/s", "first token ms, worst case", "per token ms, worst case"),
        colalign=("right",) * 4,
        disable_numparse=True,
    )
    if known.bandwidth_gb_s is None:
        return f"\n{table}\n"
    bound = weights / 1e9 / known.bandwidth_gb_s * 1000
    return f"\n{table}\n\nNo step is shorter than {bound:.1f} ms: the weights must be read once in it.\n"


def _answer(users: int, room: int, most: int, ttft: float, tpot: float) -> str:
    target = f"TTFT {ttft:,.0f} ms and TPOT {tpot:g} ms"
    if users == 0:
        why = "memory holds no slot" if room == 0 else "one user alone misses it"
        return f"This machine does not keep {target}: {why}."
    limit = "memory" if room < most else "the target"
    limits = f"memory: {room:,}, target: {most}"
    return f"This machine holds {users} users at {target}; {limit} is the limit ({limits})."


def _origin(known: Machine, measured: Measured, model: Path) -> str:
    loads = ", ".join(measured.cells)
    shape = f"{measured.prompt_tokens} tokens in and {measured.output_tokens} out"
    return f"Measured: {known.what}; {measured.subject} with {loads} users, {shape}; scaled to {model.name}."
