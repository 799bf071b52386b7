"""What is really in a GGUF file: collected here, printed as JSON or as a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rllm.api.text.rendering.renderer import form_of
from rllm.files.gguf_info import GgufInfo, kv_bytes_per_token, read_model, shard_paths
from rllm.files.gguf_reader import Tensor
from rllm.modelhub import provenance
from rllm.modelhub.provenance import Provenance, State
from rllm.modelhub.quant_types import fallen_back, file_type_name
from rllm.printable import printable

FALLBACK_WARNING_SHARE = 0.10


class Share(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    num_tensors: int
    num_params: int
    num_bytes: int
    share_of_params: float


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    sha256: str
    size_bytes: int
    name: str
    architecture: str
    num_params: int
    num_layers: int
    embedding_length: int
    vocab_size: int
    num_ctx_train: int
    file_type: str
    bits_per_weight: float
    """Of the whole file, vocabulary included: 8 x bytes / parameters, as in quality reports."""
    tensor_types: tuple[Share, ...]
    fallback_share: float
    """Share of the parameters whose type was replaced because their rows do not divide by 256."""
    kv_bytes_per_token: int | None
    """With an F16 cache; None where the header does not say what a token takes."""
    chat_template: str | None
    calls: str | None
    """How the model writes tool calls, as far as its template shows; None: that has nothing to show."""
    thoughts: str | None
    """The same of its reasoning; None: it has none."""
    num_shards: int
    """Files that the model is in; all figures are of all of them."""
    provenance: Provenance | None
    warnings: tuple[str, ...]


def inspect(path: Path) -> Inspection:
    parts = shard_paths(path)
    info = read_model(path)
    current = len(parts) == 1 and provenance.state_of(path) is State.CURRENT
    file_type = file_type_name(info)
    num_params = max(info.num_params, 1)
    fallen = fallen_back(file_type, info.tensors)
    fallback_share = sum(tensor.num_params for tensor in fallen) / num_params
    record = provenance.load(path) if current else None
    form = asyncio.run(form_of(info.chat_template)) if info.chat_template else None
    return Inspection(
        path=printable(str(parts[0])),
        sha256=provenance.checksum_of_model(parts),
        size_bytes=info.file_bytes,
        name=info.name,
        architecture=info.architecture,
        num_params=info.num_params,
        num_layers=info.num_layers,
        embedding_length=info.embedding_length,
        vocab_size=info.vocab_size,
        num_ctx_train=info.num_ctx_train,
        file_type=file_type,
        bits_per_weight=8 * info.file_bytes / num_params,
        tensor_types=tuple(
            Share(
                type=share.type,
                num_tensors=share.num_tensors,
                num_params=share.num_params,
                num_bytes=share.num_bytes,
                share_of_params=share.num_params / num_params,
            )
            for share in info.type_shares()
        ),
        fallback_share=fallback_share,
        kv_bytes_per_token=kv_bytes_per_token(info.metadata) or None,
        chat_template=info.chat_template,
        calls=str(form.tools) if form else None,
        thoughts=str(form.reasoning) if form and form.reasoning else None,
        num_shards=len(parts),
        provenance=record,
        warnings=tuple(_warnings(info, file_type, fallen, fallback_share, record)),
    )


def _warnings(
    info: GgufInfo, file_type: str, fallen: list[Tensor], share: float, record: Provenance | None
) -> Iterator[str]:
    if share > FALLBACK_WARNING_SHARE:
        widths = ", ".join(str(width) for width in sorted({tensor.shape[0] for tensor in fallen}))
        types = ", ".join(sorted({tensor.type for tensor in fallen}))
        yield (
            f"{share:.0%} of the parameters fell back from {file_type} to {types}: rows of {widths} do not "
            "divide by 256. Its size, speed and quality are not those of a usual " + file_type
        )
    if record is not None and record.requantized:
        chain = " from ".join(ancestor.type for ancestor in record.sources)
        yield f"made from {chain}: the losses of the first quantization are in this file too"
    if info.chat_template is None:
        yield "no chat template: chat requests cannot be rendered as the model was trained"
    if info.num_shards > len(shard_paths(info.path)):
        yield f"one of {info.num_shards} parts, and not named like one: the figures are of this file only"


def as_text(found: Inspection) -> str:
    rows = [
        ("file", found.path + (f" and {found.num_shards - 1} more" if found.num_shards > 1 else "")),
        ("sha256", found.sha256),
        ("size", f"{found.size_bytes / 2**20:,.1f} MiB ({found.size_bytes:,} bytes)"),
        ("model", f"{found.name} ({found.architecture})"),
        (
            "parameters",
            f"{found.num_params:,} in {found.num_layers} layers of width {found.embedding_length}",
        ),
        ("vocabulary", f"{found.vocab_size:,} tokens"),
        ("context", f"{found.num_ctx_train:,} tokens in training"),
        ("type", f"{found.file_type}, {found.bits_per_weight:.2f} bits per weight"),
        *_share_rows(found),
        ("KV cache", _kv_words(found.kv_bytes_per_token, found.num_ctx_train)),
        ("chat template", _template_words(found.chat_template)),
        ("tools", found.calls or "unknown"),
        ("reasoning", found.thoughts or "none"),
        ("provenance", _provenance_words(found.provenance)),
    ]
    lines = [f"{name:<14} {value}" for name, value in rows]
    lines += [f"warning: {warning}" for warning in found.warnings]
    return "\n".join(map(printable, lines))


def _share_rows(found: Inspection) -> Iterator[tuple[str, str]]:
    for share in found.tensor_types:
        yield (
            "",
            f"{share.type:<7} {share.share_of_params:6.1%} of parameters, {share.num_tensors:>4} tensors, "
            f"{share.num_bytes / 2**20:,.1f} MiB",
        )


def _kv_words(per_token: int | None, context: int) -> str:
    if per_token is None:
        return "unknown for this architecture"
    return f"{per_token:,} bytes per token in F16; {per_token * context / 2**20:,.0f} MiB for a full context"


def _template_words(template: str | None) -> str:
    return "none" if template is None else f"{len(template):,} characters (--json shows it)"


def _provenance_words(record: Provenance | None) -> str:
    if record is None:
        return "unknown: not made by rllm-models, or changed since"
    if record.made_by == "fetched":
        return f"fetched {record.date} from {record.origin}, licence {record.licence or 'unknown'}"
    source = f"{record.sources[0].file} ({record.sources[0].type})" if record.sources else "unknown"
    version = record.tools.get("llama-cpp-python", "unknown")
    matrix = f"importance matrix {record.imatrix}" if record.imatrix else "no importance matrix"
    return f"quantized {record.date} from {source} with llama-cpp-python {version}, {matrix}"
