"""mC4: 107 tasks in 101 languages and their mixture, under mT5's names (section 4.3).

The task of a language is `mc4.<code>`, with `_` for `-`: `mc4.iw`, `mc4.ru_Latn`. Six languages
have another task for their pages in Latin script. Codes, splits and rates are those of mT5
(https://arxiv.org/abs/2010.11934); tasks/data/mc4_examples.tsv has the source of the counts.
"""

from pathlib import Path

import seqio

from switch_jax.tasks import named_vocabularies
from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, features, language_rate

COUNTS_FILE = Path(__file__).resolve().parent / "data" / "mc4_examples.tsv"


def read_counts() -> dict[str, int]:
    """Number of training examples by language code."""
    lines = COUNTS_FILE.read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {code: int(count) for code, count in rows}


def task_name(code: str) -> str:
    return f"mc4.{code.replace('-', '_')}"


TRAIN_EXAMPLES = read_counts()

for code in TRAIN_EXAMPLES:
    seqio.TaskRegistry.add(
        task_name(code),
        source=seqio.TfdsDataSource(
            "c4/multilingual:3.0.1", splits={"train": code, "validation": f"{code}-validation"}
        ),
        preprocessors=SPAN_CORRUPTION,
        output_features=features(named_vocabularies.MT5),
        metric_fns=[],
    )

seqio.MixtureRegistry.add(
    "mc4", [(task_name(code), language_rate(count)) for code, count in TRAIN_EXAMPLES.items()]
)
