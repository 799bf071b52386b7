"""llama.cpp's server from the xllamacpp package, in a process of its own, with llama-server's options."""

from __future__ import annotations

import signal
from typing import Any

import click


@click.command()
@click.option("--model", required=True)
@click.option("--port", type=int, required=True)
@click.option("--parallel", type=int, required=True)
@click.option("--ctx-size", type=int, required=True, help="Of all slots together, as llama-server counts.")
@click.option("--threads", type=int)
@click.option("--batch-size", type=int)
@click.option("--ubatch-size", type=int)
@click.option("--n-gpu-layers", type=int)
@click.option("--flash-attn", type=click.Choice(["on", "off", "auto"]))
@click.option("--kv-unified", is_flag=True)
@click.option("--cache-ram", type=int, help="MiB of finished prompts kept in memory.")
@click.option("--metrics", is_flag=True)
def main(model: str, port: int, parallel: int, ctx_size: int, threads: int | None, **options: Any) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = parallel
    params.n_ctx = ctx_size
    params.kv_unified = options["kv_unified"]
    params.endpoint_metrics = options["metrics"]
    params.fit_params = False
    if threads is not None:
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
    _set(params, "n_batch", options["batch_size"])
    _set(params, "n_ubatch", options["ubatch_size"])
    _set(params, "n_gpu_layers", options["n_gpu_layers"])
    _set(params, "cache_ram_mib", options["cache_ram"])
    if options["flash_attn"]:
        kind = xllamacpp.llama_flash_attn_type
        names = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
        params.flash_attn_type = getattr(kind, f"LLAMA_FLASH_ATTN_TYPE_{names[options['flash_attn']]}")
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def _set(params: Any, name: str, value: int | None) -> None:
    if value is not None:
        setattr(params, name, value)


if __name__ == "__main__":
    main()
