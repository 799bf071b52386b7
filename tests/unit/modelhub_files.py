"""Tiny GGUF files and a small file server, for the tests of the model hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
from gguf import GGUFWriter


def write_gguf(path: Path, *, width: int = 256, file_type: int = 1) -> Path:
    """One layer of random F16 weights that llama.cpp accepts; rows of ``width``."""
    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(file_type)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(32)
    writer.add_chat_template("{{ messages }}")

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, rng.standard_normal((rows, columns)).astype(np.float16))

    matrix("token_embd.weight", 32, width)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(width, dtype=np.float32))
    matrix("blk.0.attn_q.weight", width, width)
    matrix("blk.0.attn_k.weight", width // 2, width)
    matrix("blk.0.attn_v.weight", width // 2, width)
    matrix("blk.0.attn_output.weight", width, width)
    matrix("blk.0.ffn_gate.weight", 256, width)
    matrix("blk.0.ffn_up.weight", 256, width)
    matrix("blk.0.ffn_down.weight", width, 256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FileServer(ThreadingHTTPServer):
    """Serves one body, honours Range and If-Range, and can be told to hang up early."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.etag = '"one"'
        self.hang_up_after: list[int] = []
        """Bytes to send before closing, one entry a request; then requests are served whole."""
        self.statuses: list[int] = []
        """Statuses to answer with first, without a body."""
        self.ranges: list[str | None] = []
        """The Range header of every GET."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/tiny.gguf"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        """What the Hugging Face hub's client asks for first; other paths do not exist there."""
        found = self.path.startswith("/owner/repo/resolve/")
        self.send_response(200 if found else 404)
        self.send_header("ETag", self.server.etag)
        self.send_header("X-Repo-Commit", "0" * 40)
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(self.server.body)) if found else "0")
        self.end_headers()

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted and self.headers.get("If-Range") == server.etag:
            found = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert found is not None
            start = int(found[1])
        if start >= len(server.body):
            self.send_error(416)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        limit = server.hang_up_after.pop(0) if server.hang_up_after else len(body)
        self.wfile.write(body[:limit])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(body: bytes) -> Iterator[FileServer]:
    with FileServer(body) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
