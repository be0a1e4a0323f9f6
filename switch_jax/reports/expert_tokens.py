"""The tokens that each expert takes, as tables; `switch_jax eval` counts them."""

import dataclasses
import html
import itertools
import operator
from collections.abc import Sequence

from switch_jax.config.model import router_names
from switch_jax.run_folder import Record

_ROWS = 64  # of a layer's table


@dataclasses.dataclass(frozen=True)
class LayerTokens:
    """What the experts of one Switch layer take.

    Attributes:
      title: the layer, its step, and the text.
      experts: a record of kind `expert_tokens` for each expert.
    """

    title: str
    experts: tuple[Record, ...]


def newest_expert_tokens(files: Sequence[Sequence[Record]]) -> tuple[LayerTokens, ...]:
    """The layers at the newest checkpoint.

    Args:
      files: the records of each file in `eval/expert_tokens`.
    """
    records = [record for file in files for record in file]
    newest = max((record["step"] for record in records), default=None)
    current = [record for record in records if record["step"] == newest]
    layers = [record["layer"] for record in current]
    sublayers = [record.get("sublayer", "feed_forward") for record in current]
    titles = map(_title, current, router_names(layers, sublayers))
    by_layer = itertools.groupby(zip(titles, current, strict=True), operator.itemgetter(0))
    return tuple(
        LayerTokens(title, tuple(record for _, record in experts)) for title, experts in by_layer
    )


def _title(record: Record, name: str) -> str:
    layer = f"{record['stack'].capitalize()} {name}"
    return f"{layer}: {record['task']} ({record['split']}), step {record['step']:,}"


def expert_tables(name: str, layers: Sequence[LayerTokens]) -> str:
    """The section of a run as HTML: a table for each layer, the first one unfolded; "" for none."""
    if not layers:
        return ""
    tables = [
        f"<details{' open' * (i == 0)}><summary>{html.escape(layer.title)}</summary>"
        f"{_table(layer.experts)}</details>"
        for i, layer in enumerate(layers)
    ]
    return (
        f"<h2>Tokens of the experts: {html.escape(name)}</h2>\n"
        '<p class="quiet">Share = of the layer&rsquo;s tokens. Most frequent = with their share of '
        "the expert&rsquo;s tokens. Typical = how many times as frequent they are here as in the "
        "whole layer, of those that the expert took at least 10 times and that are one in a "
        "thousand of its tokens. The sign ▁ begins a word.</p>\n" + "\n".join(tables)
    )


def _table(experts: Sequence[Record]) -> str:
    shown = sorted(experts, key=lambda record: -record["share"])[:_ROWS]
    rows = "\n".join(_row(record) for record in sorted(shown, key=lambda record: record["expert"]))
    left_out = len(experts) - len(shown)
    note = f'<p class="quiet">{left_out} experts with fewer tokens are left out.</p>' * bool(
        left_out
    )
    return (
        '<div class="scroll"><table class="words"><thead><tr><th>expert</th><th>share</th>'
        "<th>most frequent</th><th>typical</th></tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _row(record: Record) -> str:
    tokens = max(record["tokens"], 1)
    frequent = _words(
        record["frequent"], [f"{100 * count / tokens:.1f} %" for count in record["frequent_counts"]]
    )
    typical = _words(record["typical"], [f"{ratio:.1f}×" for ratio in record["typical_ratios"]])
    return (
        f"<tr><th>{record['expert']}</th><td>{100 * record['share']:.1f} %</td>"
        f"<td>{frequent}</td><td>{typical}</td></tr>"
    )


def _words(tokens: Sequence[str], numbers: Sequence[str]) -> str:
    return " ".join(
        f"<span><code>{html.escape(token)}</code> {number}</span>"
        for token, number in zip(tokens, numbers, strict=True)
    )
