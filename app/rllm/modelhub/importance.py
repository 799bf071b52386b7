"""Importance matrices: made from a text, or taken as they are, and never of another model."""

from __future__ import annotations

from pathlib import Path

from rllm.errors import HubError, StartError
from rllm.files.gguf_info import GgufInfo, read_gguf
from rllm.files.regular_file import open_regular
from rllm.modelhub.child import events_of
from rllm.modelhub.files import part_of
from rllm.modelhub.progress import progress

_NUM_CTX = 512


def matrix_of(given: Path, source: Path, target: Path, threads: int, chunks: int) -> Path:
    """``given``, if it is an importance matrix; else one of ``source`` over that text, beside ``target``."""
    if _is_gguf(given):
        return given
    matrix = target.with_name(f"{source.stem}.{given.stem}.imatrix.gguf")
    importance_matrix(source, given, matrix, threads=threads, chunks=chunks)
    return matrix


def importance_matrix(source: Path, text: Path, target: Path, *, threads: int, chunks: int) -> None:
    """Reads up to ``chunks`` windows of 512 tokens of the text. Nothing is left of a run that ends early."""
    part = part_of(target)
    order = {
        "model": str(source),
        "text": str(text),
        "target": str(part),
        "num_ctx": _NUM_CTX,
        "num_chunks": chunks,
        "threads": threads,
    }
    try:
        with progress(f"importance matrix over {text.name}", chunks, in_bytes=False) as advance:
            failed = f"{source}: no importance matrix"
            for event in events_of("rllm.backends.llama.importance", order, failed):
                advance(event["chunk"])
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def check_importance(path: Path, model: GgufInfo) -> None:
    """Raises HubError unless the file is an importance matrix of a model with these tensors."""
    try:
        info = read_gguf(path)
    except StartError as exc:
        raise HubError(f"--imatrix: {exc}") from None
    if info.metadata.get("general.type") != "imatrix":
        raise HubError(f"--imatrix: {path} is not an importance matrix")
    widths = {tensor.name: tensor.shape[0] for tensor in model.tensors}
    sums = {t.name.removesuffix(".in_sum2"): t.shape[0] for t in info.tensors if t.name.endswith(".in_sum2")}
    unfit = [name for name, width in sums.items() if widths.get(name) != width]
    if unfit or not sums:
        raise HubError(f"--imatrix: {path} is of another model ({unfit[0] if unfit else 'it is empty'})")


def _is_gguf(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(4) == b"GGUF"
