"""A loaded GGUF: weights or vocabulary only, and what llama.cpp says about it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from rllm.backends.llama import lib
from rllm.backends.llama.cuda_graphs import set_up
from rllm.errors import StartError
from rllm.files.gguf_info import GgufInfo, read_gguf, shard_paths

api = lib.api


class Model:
    """Owns one ``llama_model``. Its contexts must be freed before it."""

    def __init__(
        self,
        path: Path | str,
        *,
        gpu_layers: int = -1,
        mmap: bool = True,
        mlock: bool = False,
        vocab_only: bool = False,
        cuda_graphs: str = "auto",
        repack: str = "auto",
    ) -> None:
        """
        Raises:
            StartError: the file cannot be loaded; one line that names it and says why.
        """
        self.path = Path(path)
        self.header: GgufInfo = read_gguf(self.path)
        _check_shards(self.path)
        lib.initialise()
        if not vocab_only:
            parts = [read_gguf(part) for part in shard_paths(self.path)[1:]]
            tensors = [tensor for part in (self.header, *parts) for tensor in part.tensors]
            set_up(cuda_graphs, tensors, by_step=lib.chooses_graphs_by_step())
            _check_generates(self.header)
            if gpu_layers != 0 and lib.gpus_hidden() and lib.is_cuda_build():
                raise StartError(f"{self.path}: this process loaded a vocabulary first, with the GPUs hidden")
        params = api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.vocab_only = vocab_only
        params.load_mode = _load_mode(mmap, mlock)
        params.use_extra_bufts = repack != "off"
        lib.log.errors.clear()
        lib.log.buffers.clear()
        self.pointer = api.llama_model_load_from_file(str(self.path).encode(), params)
        if not self.pointer:
            raise StartError(f"{self.path}: {lib.log.last_error()}")
        if not vocab_only:
            self._check_decodes()

    def _check_decodes(self) -> None:
        for refused, what in (
            (api.llama_model_has_encoder(self.pointer), "has an encoder"),
            (not api.llama_model_has_decoder(self.pointer), "has no decoder"),
            (api.llama_model_is_diffusion(self.pointer), "is a diffusion model"),
        ):
            if refused:
                self.close()
                raise StartError(f"{self.path}: only decoder models can be served, and this one {what}")

    @property
    def vocab(self) -> ctypes.c_void_p:
        vocab: ctypes.c_void_p = api.llama_model_get_vocab(self.pointer)
        return vocab

    @property
    def description(self) -> str:
        return text_from(lambda buffer, size: api.llama_model_desc(self.pointer, buffer, size)) or ""

    @property
    def num_params(self) -> int:
        return int(api.llama_model_n_params(self.pointer))

    @property
    def size_bytes(self) -> int:
        return int(api.llama_model_size(self.pointer))

    @property
    def num_ctx_train(self) -> int:
        return int(api.llama_model_n_ctx_train(self.pointer))

    @property
    def vocab_size(self) -> int:
        return int(api.llama_vocab_n_tokens(self.vocab))

    @property
    def can_drop_tail(self) -> bool:
        """Whether the last tokens of a sequence can be forgotten, which every reuse of a prefix needs.

        A sliding window does not matter: its cache is kept in full (``swa_full``).
        """
        return not (api.llama_model_is_recurrent(self.pointer) or api.llama_model_is_hybrid(self.pointer))

    @property
    def can_save_state(self) -> bool:
        """Whether a saved sequence can be continued from any of its positions.

        Recurrent states are only right at their end, and of a sliding window llama.cpp saves nothing that the
        last position does not see.
        """
        return self.can_drop_tail and int(api.llama_model_n_swa(self.pointer)) == 0

    def close(self) -> None:
        if self.pointer:
            api.llama_model_free(self.pointer)
            self.pointer = None


def text_from(fill: Callable[[ctypes.Array[ctypes.c_char], int], int], size: int = 256) -> str | None:
    """A string from a C function that fills a buffer and returns the length it needs."""
    for _ in range(2):
        buffer = ctypes.create_string_buffer(size)
        length = fill(buffer, size)
        if length < 0:
            return None
        if length < size:
            return buffer.value.decode("utf-8", "replace")
        size = length + 1
    return None


def _load_mode(mmap: bool, mlock: bool) -> int:
    mode = {
        (False, False): api.LLAMA_LOAD_MODE_NONE,
        (True, False): api.LLAMA_LOAD_MODE_MMAP,
        (False, True): api.LLAMA_LOAD_MODE_MLOCK,
        (True, True): api.LLAMA_LOAD_MODE_MMAP_MLOCK,
    }[mmap, mlock]
    return int(mode)


def _check_shards(path: Path) -> None:
    shards = shard_paths(path)
    for shard in shards:
        if not shard.exists():
            raise StartError(f"{path}: its part {shard.name} is missing")
    if shards[0] != path:
        raise StartError(f"{path}: name the first part, {shards[0].name}")


def _check_generates(header: GgufInfo) -> None:
    """Refuse by metadata what llama.cpp would load but cannot continue a text with."""
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise StartError(f"{header.path}: holds weights of type {kind!r}, not a model")
    if header.metadata.get(f"{header.architecture}.attention.causal") is False:
        raise StartError(
            f"{header.path}: {header.architecture} is an embedding model and cannot generate text"
        )
    if header.metadata.get("tokenizer.ggml.model", "none") in ("none", "no_vocab"):
        raise StartError(f"{header.path}: has no vocabulary")
