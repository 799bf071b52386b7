"""Prometheus' text format, as `prometheus_client.generate_latest` writes it, without its work on every line.

What stays the same from scrape to scrape, a sample's name and labels, is put together once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_Key = tuple[str, ...]


class Renderer:
    """For counters, gauges and histograms with plain names, and labels of which there is a bounded number."""

    def __init__(self) -> None:
        self._heads: dict[_Key, str] = {}
        """What stands before the value, by name and values of the labels."""

    def render(self, families: Iterable[Metric]) -> bytes:
        return "".join(line for family in families for line in self._family(family)).encode()

    def _family(self, family: Metric) -> Iterator[str]:
        name, of_creation = family.name, f"{family.name}_created"
        yield from _about(f"{name}_total" if family.type == "counter" else name, family.type, family)
        created: list[str] = []
        for sample in family.samples:
            value: str = floatToGoString(sample.value)  # type: ignore[no-untyped-call] # the library's
            line = f"{self._head(sample)} {value}\n"
            if sample.name == of_creation:
                created.append(line)
            else:
                yield line
        if created:
            yield from _about(of_creation, "gauge", family)
            yield from created

    def _head(self, sample: Sample) -> str:
        key = (sample.name, *sample.labels.values())
        if (head := self._heads.get(key)) is None:
            head = self._heads[key] = _head(sample)
        return head


def _about(name: str, kind: str, family: Metric) -> Iterator[str]:
    text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _head(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
