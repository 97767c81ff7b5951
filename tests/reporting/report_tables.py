"""Small tables of the form that the evaluation saves, and a strict parser of pages."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl

from unime_kedro.reporting.drawing import FIRST, SECOND, new_figure

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Element:
    """An element: its tag, attributes, children and text."""

    def __init__(self, tag: str = "", attrs: Any = ()) -> None:
        self.tag, self.attrs, self.parts = tag, dict(attrs), []

    def find(self, tag: str = "", css: str = "", **attrs: str) -> list[Element]:
        """All descendants with this tag, this CSS class and these attributes."""
        found = []
        for child in (part for part in self.parts if isinstance(part, Element)):
            has_class = not css or css in (child.attrs.get("class") or "").split()
            if (not tag or child.tag == tag) and has_class and all(child.attrs.get(k) == v for k, v in attrs.items()):
                found.append(child)
            found += child.find(tag, css, **attrs)
        return found

    @property
    def text(self) -> str:
        return " ".join(" ".join(part if isinstance(part, str) else part.text for part in self.parts).split())


class Parser(HTMLParser):
    """Every element that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element()
        self.stack = [self.root]
        self.feed(html)
        self.close()
        assert self.stack == [self.root], f"unclosed: {[one.tag for one in self.stack[1:]]}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        element = Element(tag, attrs)
        self.stack[-1].parts.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.stack[-1].parts.append(Element(tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.stack[-1].parts.append(data)


def parsed(html: str) -> Element:
    return Parser(html).root


def predictions(rows: list[tuple[str, str, int, bool]], benchmark: str = "B") -> pl.DataFrame:
    """(model, dataset, query_id, correct) as a table of predictions."""
    schema = {"model": pl.String, "dataset": pl.String, "query_id": pl.Int64, "correct": pl.Boolean}
    return pl.DataFrame(rows, schema, orient="row").with_columns(benchmark=pl.lit(benchmark), unit=pl.col("query_id"))


def rankings(rows: list[tuple[str, int, int, float, bool, int | None, str, str]]) -> pl.DataFrame:
    """(model, query_id, position, similarity, right, reranked_position, text, image) of data set D of benchmark B."""
    schema = {
        "model": pl.String, "query_id": pl.Int64, "position": pl.Int32, "similarity": pl.Float32, "right": pl.Boolean,
        "reranked_position": pl.Int32, "text": pl.String, "image": pl.String,
    }  # fmt: skip
    table = pl.DataFrame(rows, schema, orient="row")
    return table.with_columns(
        benchmark=pl.lit("B"), dataset=pl.lit("D"), candidate_index=pl.col("position").cast(pl.Int64),
        content_id=pl.int_range(pl.len()),
    )  # fmt: skip


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 10) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


#: what a comparison of two models gives
FOUND = pl.DataFrame(
    {
        "dataset": ["a", "b", "c", "all"], "n": [10, 20, 30, 60], "first": [0.5, 0.9, 0.4, 0.6],
        "second": [0.4, 0.5, 0.6, 0.5], "difference": [0.1, 0.4, -0.2, 0.1], "low": [0.0, 0.3, -0.3, 0.05],
        "high": [0.2, 0.5, -0.1, 0.15], "p": [0.04, 0.001, 0.01, 0.002], "p_holm": [0.2, 0.003, 0.02, None],
        "detectable": [0.2, 0.1, 0.1, 0.06],
    }
)  # fmt: skip

#: results of an ablation, as they are saved
DOCUMENT = {
    "group": "g", "title": "Losses", "reference": "base",
    "columns": {"p": {"title": "P@1", "percent": True}, "q": {"title": "IND", "percent": True}},
    "arms": [
        {"arm": "base", "seeds": [1, 2], "figures": {"p": {"mean": 0.5, "deviation": 0.01}}, "difference": None},
        {"arm": "soft", "seeds": [1, 2], "figures": {"p": {"mean": 0.53, "deviation": 0.02}},
         "difference": {"value": 0.03, "low": 0.01, "high": 0.05, "by_seed": {"1": 0.02, "2": 0.04}}},
        {"arm": "new", "seeds": [1], "figures": {"p": {"mean": 0.4, "deviation": None}},
         "difference": {"value": -0.1, "low": None, "high": None, "by_seed": {"1": -0.1}}},
    ],
    "paper": {"table": "Table 4", "model": "2B", "columns": ["MMEB"], "figures": {"base": [60.1], "soft": [63.6]}},
    "notes": ["n"],
    "runs": {
        "a": {"code": {"mlflow.source.git.commit": "0123456789abcdef", "git.dirty": "true"}, "inputs": {"pool": "ff" * 20}},
        "b": {"code": {"mlflow.source.git.commit": "0123456789abcdef", "git.dirty": "false"}, "inputs": {"pool": "ff" * 20}},
    },
}  # fmt: skip


def drawing(seed: int = 0) -> Any:
    """A figure with everything that becomes SVG: lines, markers, words, a clipped panel."""
    figure, (axes, _) = new_figure(4, 2, 1, 2)
    axes.plot(np.random.default_rng(seed).random(5), color=FIRST)
    axes.scatter([1, 2], [3, 4], color=SECOND, clip_on=True)
    axes.set_title("what & why")
    return figure
