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
      title: the layer, the text, and the step.
      experts: a record of kind `expert_tokens` for each expert.
    """

    title: str
    experts: tuple[Record, ...]


def tokens_by_layer(records: Sequence[Record]) -> tuple[LayerTokens, ...]:
    """The layers, from the records of files in `eval/expert_tokens`, in their order."""
    layers = [record["layer"] for record in records]
    sublayers = [record.get("sublayer", "feed_forward") for record in records]
    titles = map(_title, records, router_names(layers, sublayers))
    by_layer = itertools.groupby(zip(titles, records, strict=True), operator.itemgetter(0))
    return tuple(
        LayerTokens(title, tuple(record for _, record in experts)) for title, experts in by_layer
    )


def _title(record: Record, name: str) -> str:
    layer, number = f"{record['stack'].capitalize()} {name}", record["max_examples"]
    part = f", max_examples = {number}" if number else ""
    return f"{layer}: {record['task']} ({record['split']}{part}), step {record['step']:,}"


def expert_tables(name: str, layers: Sequence[LayerTokens]) -> str:
    """The section of a run as HTML: a table for each layer, the first one unfolded; "" for none."""
    if not layers:
        return ""
    tables = [
        f"<details{' open' * (i == 0)}><summary>{html.escape(layer.title)}</summary>"
        f"{_table(layer.experts)}</details>"
        for i, layer in enumerate(layers)
    ]
    sign = " The sign ▁ is the space before a word." if "▁" in "".join(tables) else ""
    return (
        f"<h2>Tokens of the experts: {html.escape(name)}</h2>\n"
        '<p class="quiet">Tokens are counted for the expert that the router chooses, whether or '
        "not it has a slot for them; with NTLB_ROUNDS above 1, for the first choice. The "
        "decoder&rsquo;s are those that it reads: &lt;start&gt;, and then the targets. Share = of "
        "the layer&rsquo;s tokens. Most frequent = with their share of the expert&rsquo;s tokens. "
        "Typical = how many times as frequent they are here as in the whole layer, of those with a "
        "ratio above 1 that are counted here at least 10 times and are at least one in a thousand "
        f"of the expert&rsquo;s tokens.{sign}</p>\n" + "\n".join(tables)
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
