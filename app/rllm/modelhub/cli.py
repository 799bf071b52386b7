"""``rllm-models``: options in, one function of this package called, one line out where it fails."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import click
import msgspec

from rllm.errors import HubError, RllmError
from rllm.files.gguf_info import model_name, shard_paths
from rllm.files.utf8 import fault_of
from rllm.modelhub.catalog import HfSource, Model, PathSource, Source, UrlSource, load_catalog
from rllm.modelhub.quant_types import QUANT_TYPES
from rllm.printable import printable, printable_json
from rllm.tuning.points import Use

_GGUF = click.Path(path_type=Path, dir_okay=False)
_HF = re.compile(r"hf:(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")


def default_models_dir() -> Path:
    """The checkout's own models/ when run from one, else models/ here."""
    checkout = Path(__file__).resolve().parents[3] / "models"
    return checkout if (checkout / "models.toml").exists() else Path("models")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RLLM_MODELS_DIR",
    help="Folder with models.toml and the files.  [default: the checkout's models/, else ./models]",
)
@click.pass_context
def cli(context: click.Context, models_dir: Path | None) -> None:
    """Fetch, quantize and inspect GGUF model files."""
    context.obj = models_dir or default_models_dir()


@cli.command()
@click.argument("models", nargs=-1)
@click.option("--variants", is_flag=True, help="Also make the variants that models.toml names.")
@click.option("--sha256", help="Expected checksum; only with a URL, an hf: name or a path.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="For the variants; 0: all cores.")
@click.pass_obj
def pull(
    directory: Path, models: tuple[str, ...], variants: bool, sha256: str | None, force: bool, threads: int
) -> None:
    """Fetch MODELS: names from models.toml ("default" if none), URLs, hf:OWNER/REPO/FILE[@REVISION], or paths
    of files.

    Every file is checked, continued where it stopped, and moved into place only when it is whole.
    """
    from rllm.modelhub.pull import Pull

    worker = Pull(directory, say=_say, force=force, threads=threads)
    for model in [_model(directory, name, sha256) for name in models or ("default",)]:
        worker.model(model, with_variants=variants)


def _model(directory: Path, name: str, sha256: str | None) -> Model:
    source = _source(name)
    if source is None:
        if sha256 is not None:
            raise HubError(f"--sha256: {name!r} is an entry of models.toml, which has its own")
        return load_catalog(directory).find(name)
    path = urlsplit(name).path if isinstance(source, UrlSource) else name.partition("@")[0]
    found = {"file": Path(path).name, "source": source, "sha256": sha256.lower() if sha256 else None}
    try:
        return msgspec.convert(found, Model)
    except msgspec.ValidationError as error:
        raise HubError(f"{name}: {error}") from None


def _source(name: str) -> Source | None:
    """What an argument that is not a catalog name stands for."""
    if name.startswith(("http://", "https://")):
        return UrlSource(url=name)
    if found := _HF.fullmatch(name):
        fields = {"repo": found["repo"], "filename": found["file"], "revision": found["revision"] or "main"}
        try:
            return msgspec.convert({"kind": "hf", **fields}, HfSource)
        except msgspec.ValidationError as error:
            raise HubError(f"{name}: {error}") from None
    if name.startswith("hf:"):
        raise HubError(f"{name}: expected hf:OWNER/REPOSITORY/FILE.gguf[@REVISION]")
    if "/" in name or name.endswith(".gguf"):
        return PathSource(path=str(Path(name).absolute()))
    return None


def _quant_type(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value.upper() not in QUANT_TYPES:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(QUANT_TYPES)}.")
    return value.upper()


def _tensor_types(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = [value.rpartition("=") for value in values]
    for value, (pattern, _, _) in zip(values, pairs, strict=True):
        if not pattern:
            raise click.BadParameter(f"{value!r}: expected REGEX=TYPE")
    return tuple((pattern, name.upper()) for pattern, _, name in pairs)


@cli.command(epilog=f"TYPE is one of {', '.join(QUANT_TYPES)}.")
@click.argument("source", type=_GGUF)
@click.argument("quant_type", metavar="TYPE", callback=_quant_type)
@click.option("-o", "--output", type=_GGUF, help="[default: SOURCE's name with the type, beside it]")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores.")
@click.option("--allow-requantize", is_flag=True, help="Accept a source that is quantized already.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@click.option(
    "--imatrix", type=_GGUF, help="A text to weigh the activations with, or an importance matrix made before."
)
@click.option(
    "--imatrix-chunks", default=100, show_default=True, type=click.IntRange(1), help="Of 512 tokens."
)
@click.option(
    "--tensor-type", "tensor_types", multiple=True, metavar="REGEX=TYPE", callback=_tensor_types,
    help="Another type for the tensors that fit, such as attn_v=Q8_0; may be repeated.",
)  # fmt: skip
def quantize(
    source: Path,
    quant_type: str,
    output: Path | None,
    threads: int,
    allow_requantize: bool,
    force: bool,
    imatrix: Path | None,
    imatrix_chunks: int,
    tensor_types: tuple[tuple[str, str], ...],
) -> None:
    """Make a TYPE of SOURCE with llama.cpp, and write down beside it what it was made of."""
    from rllm.modelhub.files import only_one
    from rllm.modelhub.importance import matrix_of
    from rllm.modelhub.quantizing import QuantizeJob
    from rllm.modelhub.quantizing import quantize as run

    target = output or source.with_name(f"{model_name(source)}.{quant_type}.gguf")
    if target.exists() and not force:
        raise HubError(f"{target}: exists already; --force replaces it")
    with only_one(target.parent):
        first = shard_paths(source)[0]
        matrix = matrix_of(imatrix, first, target, threads, imatrix_chunks) if imatrix else None
        record = run(
            QuantizeJob(
                imatrix=matrix,
                tensor_types=tensor_types,
                source=source,
                target=target,
                type=quant_type,
                threads=threads,
                allow_requantize=allow_requantize,
            )
        )
    _say(f"{target}: {record.type}, {record.size_bytes / 2**20:,.1f} MiB, sha256 {record.sha256}")
    if record.num_fallbacks:
        click.echo(
            f"warning: {record.num_fallbacks} tensors fell back to another type; see rllm-models inspect"
        )


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_models(directory: Path, as_json: bool) -> None:
    """List the files that are there and the catalog's entries that are not."""
    from rllm.modelhub.listing import as_table, entries

    found = entries(directory, load_catalog(directory))
    click.echo(_json(found) if as_json else as_table(found))


@cli.command()
@click.argument("files", nargs=-1, required=True, type=_GGUF)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with everything.")
def inspect(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what is in FILES: architecture, types by share of parameters, KV bytes per token, checksum."""
    from rllm.modelhub.inspecting import as_text
    from rllm.modelhub.inspecting import inspect as run

    found = [run(path) for path in files]
    click.echo(_json(found) if as_json else "\n\n".join(as_text(each) for each in found))


@cli.command("export-hf")
@click.argument("file", type=_GGUF)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help="Replace a model that is there.")
def export_hf(file: Path, folder: Path, force: bool) -> None:
    """Write an unquantized Llama GGUF FILE as a Hugging Face FOLDER: config, tokenizer, fp16 safetensors.

    For baselines that cannot read GGUF, such as vLLM.
    """
    from rllm.modelhub.export_hf import export_hf as run

    run(file, folder, force=force)
    _say(f"{folder}: exported from {file}")


@cli.command()
@click.argument("file", type=_GGUF)
@click.option(
    "--for",
    "use",
    type=click.Choice(["chat", "long", "throughput", "latency"]),
    default="chat",
    show_default=True,
    help="600 tokens and 1 to 8 users; 2,000 tokens; 16 users; 1 user.",
)
@click.option("--quick", is_flag=True, help="A few seconds, as rllm-serve --tune quick does.")
@click.option(
    "--profile-dir", type=click.Path(path_type=Path, file_okay=False), help="Default: as rllm-serve."
)
def tune(file: Path, use: Use, quick: bool, profile_dir: Path | None) -> None:
    """Measure which options are fastest for FILE on this machine, and keep that for rllm-serve.

    Every combination is timed in turns, in a process of its own: decoding at several depths and numbers of
    sequences, and prompts. Serve nothing meanwhile.
    """
    import rllm.backends.llama  # noqa: F401  before numpy
    from rllm.modelhub.tuning import run

    run(file, use, "quick" if quick else "full", profile_dir)


def _json(value: object) -> str:
    return printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _say(line: str) -> None:
    click.echo(printable(line))


def _terminate(_signal: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    signal.signal(signal.SIGTERM, _terminate)  # so that half-made files are removed on the way out
    if faults := [fault for fault in map(fault_of, sys.argv[1:]) if fault]:
        _fail(faults[0])
    try:
        cli.main(standalone_mode=False, prog_name="rllm-models")
    except (KeyboardInterrupt, click.Abort):
        sys.exit(128 + signal.SIGINT)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RllmError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(message: str) -> NoReturn:
    click.echo(printable(f"rllm-models: error: {message}"), err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
