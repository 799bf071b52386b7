"""A real nginx with the configuration from docs/."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.circumstances import ROOT
from tests.chaos.servers import free_port

CONFIG = ROOT / "docs/nginx.conf"
_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 2048; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


def find(binary: Path | None) -> Path | None:
    found = binary or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    return Path(found) if found else None


@asynccontextmanager
async def nginx(binary: Path, ports: Sequence[int], logs: Path) -> AsyncIterator[str]:
    """Its address; it passes on to two servers at ``ports``. docs/nginx.conf as it is, but for the ports."""
    listen = free_port()
    site = CONFIG.read_text()
    for there, here in ((8001, ports[0]), (8002, ports[1]), (8080, listen)):
        site = site.replace(f"127.0.0.1:{there}", f"127.0.0.1:{here}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # its workers run as another user
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, site=site))
        process = await asyncio.create_subprocess_exec(
            binary, "-p", folder, "-c", folder / "nginx.conf", stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await _wait_open(listen, process)
            yield f"http://127.0.0.1:{listen}"
        finally:
            process.terminate()
            await process.wait()
            for name in ("error.log", "access.log"):
                shutil.copy(folder / name, logs / f"nginx-{name}")


async def _wait_open(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(10):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"nginx ended with {process.returncode}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
