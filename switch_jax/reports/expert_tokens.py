"""The tokens that each expert takes, as `switch_jax eval` counts them, layer by layer."""

import itertools
import operator
from collections.abc import Sequence
from typing import NamedTuple

from switch_jax.config.model import router_names
from switch_jax.run_folder import Record

_ROWS = 64  # of a layer's table


class LayerTokens(NamedTuple):
    """What the experts of one Switch layer take."""

    title: str  # the layer, the text, and the step
    experts: tuple[Record, ...]  # a record of kind `expert_tokens` for each

    @property
    def shown(self) -> list[Record]:
        """The experts with the most tokens, as many as a table has rows, by their numbers.

        `frequent_shares` are the percentages of the frequent tokens.
        """
        most = sorted(self.experts, key=lambda record: -record["share"])[:_ROWS]
        return [
            {**record, "frequent_shares": [100 * n / tokens for n in record["frequent_counts"]]}
            for record in sorted(most, key=operator.itemgetter("expert"))
            for tokens in [max(record["tokens"], 1)]
        ]

    @property
    def has_spaces(self) -> bool:
        """Whether a token has the sign for the space before a word."""
        return any("▁" in token for r in self.shown for token in (*r["frequent"], *r["typical"]))


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
