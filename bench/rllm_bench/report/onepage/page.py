"""The page as Markdown with a key beside every figure; `figures` computes them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rllm_bench.figures.keys import UnknownFigure, parse
from rllm_bench.figures.sources import Catalog
from rllm_bench.report.onepage.spec import Page, Row, Table, Tuned
from rllm_bench.report.tables import unaligned

LANGUAGES = {"en": "SUMMARY.md", "zh": "SUMMARY.zh-CN.md"}
"""The file each language goes to."""
WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text())
Best = Callable[[Sequence[float]], float]


class Writer:
    """Writes one language. Figures are computed while writing, since who leads decides the words."""

    def __init__(self, catalog: Catalog, language: str) -> None:
        self._catalog = catalog
        self._language = language
        self._words = WORDS[language]

    def page(self, page: Page, charts: Sequence[str]) -> str:
        parts = [f"# {page.heading[self._language]}", self._words["other"], page.lead[self._language]]
        for table, chart in zip(page.tables, charts, strict=True):
            parts += self._section(table, chart)
        parts += [self._tuned(tuned) for tuned in page.tuned]
        if page.doubts:
            parts.append(f"## {self._words['doubts']}")
            parts.append("\n".join(f"- {doubt[self._language]}" for doubt in page.doubts))
        parts.append(self._words["written"] + " " + self._words["in_time"])
        return "\n\n".join(parts) + "\n"

    # --- a machine -------------------------------------------------------------------------------------

    def _section(self, table: Table, chart: str) -> Iterator[str]:
        shape = self._words["tokens"].format(prompt=table.prompt_tokens, output=table.output_tokens)
        yield f"## {table.title[self._language]}, {shape}"
        if any(row.peer for row in table.rows):
            yield "\n".join(f"- {sentence}" for sentence in self._sentences(table))
        yield self._table(table)
        yield f"![{self._words['chart']}]({chart})"
        if table.notes:
            yield "\n".join(f"- {note[self._language]}" for note in table.notes)

    def _sentences(self, table: Table) -> Iterator[str]:
        for users in table.loads:
            ours = self._fastest(table, users, [row for row in table.rows if row.ours])
            peer = self._fastest(table, users, [row for row in table.rows if row.peer])
            if ours is None or peer is None:
                continue
            mine, theirs = (_figure(table, row, users, "output_tps") for row in (ours, peer))
            leads = (self._number(mine) or 0) > (self._number(theirs) or 0)
            text = self._words["ahead" if leads else "behind"].format(
                ours=self._name(ours),
                peer=self._name(peer),
                tps=self._mark(mine),
                peer_tps=self._mark(theirs),
                ratio=self._mark(f"{mine} / {theirs} as .2f"),
                memory=self._mark(
                    f"( {_in_use(table, ours, users)} ) / ( {_in_use(table, peer, users)} ) * 100 as .0f"
                ),
            )
            head = self._words["one"] if users == 1 else self._words["many"].format(users=users)
            yield f"{head} {text}"

    def _fastest(self, table: Table, users: int, rows: Sequence[Row]) -> Row | None:
        found = {row.name: self._number(_figure(table, row, users, "output_tps")) for row in rows}
        known = [row for row in rows if found[row.name] is not None]
        return max(known, key=lambda row: found[row.name] or 0.0, default=None)

    def _table(self, table: Table) -> str:
        ends = [table.loads[0], table.loads[-1]]
        most = table.loads[-1]
        dots, both = " · ".join(map(str, table.loads)), " · ".join(map(str, ends))
        heads = ["server", "tps", "ttft", "itl", "weights", "usd", "users", "quality"]
        titles = [
            self._words[head].format(loads=dots if head == "tps" else both, most=most) for head in heads
        ]
        columns = [
            self._series(table, "output_tps", table.loads, max),
            self._series(table, "ttft_p99_ms", ends, min),
            self._series(table, "itl_p99_ms", ends, min),
            [self._memory(table, row, most) for row in table.rows],
            [self._cost(table, row, most) for row in table.rows],
            [self._users(table, row) for row in table.rows],
            [self._mark(row.quality) if row.quality else self._words["unknown"] for row in table.rows],
        ]
        body = [[self._name(row), *(column[at] for column in columns)] for at, row in enumerate(table.rows)]
        return _markdown([titles, *body])

    def _name(self, row: Row) -> str:
        return (row.zh if self._language == "zh" else None) or row.name

    def _series(self, table: Table, metric: str, loads: Sequence[int], best: Best) -> list[str]:
        """Per row the figures over ``loads``; the best of each load in the table's own run is bold."""
        cells: list[list[str]] = [[] for _ in table.rows]
        for users in loads:
            keys = [_figure(table, row, users, metric) for row in table.rows]
            values = [self._number(key) for key in keys]
            rivals = [
                v for row, v in zip(table.rows, values, strict=True) if v is not None and not row.source
            ]
            for row, cell, key, value in zip(table.rows, cells, keys, values, strict=True):
                bold = bool(rivals) and not row.source and value == best(rivals)
                cell.append(self._cell(key, value, bold))
        return [" · ".join(cell) for cell in cells]

    def _cell(self, key: str, value: float | None, bold: bool) -> str:
        if value is None:
            return "–"
        return f"**{self._mark(key)}**" if bold else self._mark(key)

    def _memory(self, table: Table, row: Row, users: int) -> str:
        held = f"{_figure(table, row, users, table.memory)} / 1000 as .1f"
        in_use = f"{_in_use(table, row, users)} as .1f"
        return f"{self._known(in_use)} ({self._known(held)})"

    def _cost(self, table: Table, row: Row, users: int) -> str:
        cell = _figure(table, row, users, "usd_per")
        million, thousand = self._known(f"{cell}_1m as .2f"), self._known(f"{cell}_1k as .5f")
        return f"{million} ({thousand})"

    def _users(self, table: Table, row: Row) -> str:
        shape = f"p{table.prompt_tokens}-o{table.output_tokens}"
        source = row.source or table.source
        found = [
            f"{source} {row.subject} {shape} most_users_{goal} as .0f" for goal in ("server", "interactive")
        ]
        return " · ".join(self._known(key) for key in found)

    # --- baseline against tuned ------------------------------------------------------------------------

    def _tuned(self, tuned: Tuned) -> str:
        titles = [
            self._words["setting"],
            "tok/s",
            self._words["tuned_ttft"],
            "TPOT p50",
            self._words["tuned_itl"],
        ]
        lines = [titles]
        for name, subject in tuned.rows.items():
            cell = f"{tuned.source} {subject} {tuned.group}"
            lines.append(
                [
                    name,
                    self._known(f"{cell} output_tps"),
                    " / ".join(self._known(f"{cell} ttft_{q}_ms as .0f") for q in ("p50", "p99")),
                    self._known(f"{cell} tpot_p50_ms"),
                    " / ".join(self._known(f"{cell} itl_{q}_ms as .1f") for q in ("p50", "p99")),
                ]
            )
        return f"## {tuned.title[self._language]}\n\n{_markdown(lines)}"

    # --- figures ---------------------------------------------------------------------------------------

    def _mark(self, key: str) -> str:
        return f"<!--= {key} -->{parse(key).compute(self._catalog.source)}<!--/-->"

    def _known(self, key: str) -> str:
        try:
            return self._mark(key)
        except UnknownFigure:
            return "–"

    def _number(self, key: str) -> float | None:
        try:
            return parse(key).value(self._catalog.source)
        except UnknownFigure:
            return None


def _figure(table: Table, row: Row, users: int, metric: str) -> str:
    return f"{row.source or table.source} {row.subject} {table.group(users)} {metric}"


def _in_use(table: Table, row: Row, users: int) -> str:
    """Weights and the cache of the tokens in use, GB: the least that this load needs."""
    weights = row.weights_of or row.subject
    tokens = table.prompt_tokens + table.output_tokens
    file = f"{row.source or table.source} {weights} {table.group(users)} model_gb"
    return f"{users} * {tokens} * {table.kv_bytes_per_token} / 1e9 + {file}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(unaligned(rows[0], rows[1:]))
