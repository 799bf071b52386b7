"""Make the files of a model exist: fetch, check, quantize. What is there already costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rllm.errors import HubError, StartError
from rllm.files.gguf_info import read_gguf
from rllm.modelhub import provenance
from rllm.modelhub.catalog import Model, Variant, beside_catalog
from rllm.modelhub.files import move_into_place, only_one, part_of, remove_part
from rllm.modelhub.progress import progress
from rllm.modelhub.provenance import Provenance, State
from rllm.modelhub.quant_types import file_type_name
from rllm.modelhub.quantizing import QuantizeJob, describe_imatrix, quantize
from rllm.modelhub.sources import bring

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pull:
    """How to treat what is found in ``directory``; ``force`` replaces it."""

    directory: Path
    say: Say
    force: bool = False
    threads: int = 0

    def model(self, model: Model, *, with_variants: bool) -> None:
        with only_one(self.directory):
            self._file(model)
            self._recommend(model.file, model.sampling)
            for variant in model.variants if with_variants else ():
                self._variant(variant, model.licence)
                self._recommend(variant.file, model.sampling)

    def _file(self, model: Model) -> None:
        target = self.directory / model.file
        if not self.force and self._is_there(target, model.sha256):
            return
        part = part_of(target)
        origin = bring(model.source, part, self.directory)
        digest = _checked(part, target.name, model.sha256)
        if model.sha256 is None:
            self.say(f"{target.name}: models.toml gives no sha256; this file has {digest}")
        provenance.save(target, _described(part, target.name, digest, origin, model.licence))
        move_into_place(part, target)
        self.say(f"{target}: fetched")

    def _is_there(self, target: Path, wanted: str | None) -> bool:
        state = provenance.state_of(target)
        if state is State.ABSENT:
            return False
        digest = provenance.checksum(target)
        if wanted is not None and digest != wanted:
            raise HubError(
                f"{target}: sha256 is {digest}, models.toml says {wanted}; --force fetches it again"
            )
        if state is State.FOREIGN and wanted is not None:
            provenance.save(target, _fetched(target, target.name, digest, "found in place", None))
        elif state is not State.CURRENT:
            self.say(f"{target}: not fetched by rllm-models, or changed since; left as it is")
            return True
        self.say(f"{target}: there")
        return True

    def _recommend(self, file: str, sampling: dict[str, float]) -> None:
        """Write the catalog's recommendation beside a file of ours; others are left alone."""
        target = self.directory / file
        record = provenance.load(target)
        if (
            record is not None
            and record.sampling != sampling
            and provenance.state_of(target) is State.CURRENT
        ):
            provenance.save(target, msgspec.structs.replace(record, sampling=sampling))

    def _variant(self, variant: Variant, licence: str) -> None:
        source, target = self.directory / variant.source, self.directory / variant.file
        state = provenance.state_of(target)
        if state in (State.FOREIGN, State.CHANGED) and not self.force:
            self.say(
                f"{target}: not made by rllm-models, or changed since; left as it is (--force remakes it)"
            )
            return
        imatrix = beside_catalog(self.directory, variant.imatrix) if variant.imatrix else None
        if state is State.CURRENT and not self.force and _still_fits(target, variant, source, imatrix):
            self.say(f"{target}: there ({variant.type})")
            return
        quantize(
            QuantizeJob(
                source=source,
                target=target,
                type=variant.type,
                allow_requantize=variant.allow_requantize,
                threads=self.threads,
                licence=licence,
                imatrix=imatrix,
            )
        )
        self.say(f"{target}: made ({variant.type} from {source.name})")


def _still_fits(target: Path, variant: Variant, source: Path, imatrix: Path | None) -> bool:
    record = provenance.load(target)
    if record is None or record.type != variant.type or not record.sources:
        return False
    if record.imatrix != (describe_imatrix(imatrix) if imatrix else None):
        return False
    return record.sources[0].sha256 == provenance.checksum(source)


def _checked(part: Path, name: str, wanted: str | None) -> str:
    """The checksum of a complete ``part``. A wrong file is removed: continuing it would never get right."""
    with progress(f"checking {name}", part.stat().st_size) as advance:
        digest = provenance.sha256_of(part, advance)
    if wanted is not None and digest != wanted:
        remove_part(part)
        raise HubError(
            f"{name}: sha256 is {digest}, expected {wanted}; the download was removed, nothing changed"
        )
    return digest


def _described(part: Path, name: str, digest: str, origin: str, licence: str | None) -> Provenance:
    """What was fetched. What is no model is removed, too."""
    try:
        return _fetched(part, name, digest, origin, licence)
    except StartError as error:
        remove_part(part)
        reason = str(error).removeprefix(f"{part}: ")
        raise HubError(f"{name}: {reason}; the download was removed, nothing changed") from None


def _fetched(path: Path, name: str, digest: str, origin: str, licence: str | None) -> Provenance:
    stat = path.stat()
    return Provenance(
        file=name,
        sha256=digest,
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        made_by="fetched",
        type=file_type_name(read_gguf(path)),
        date=provenance.now(),
        tools=provenance.tool_versions(),
        origin=origin,
        licence=licence,
    )
