"""mC4: 107 tasks in 101 languages and their mixtures (section 4.3); span corruption as mT5 has it.

The task of a language is `mc4.<code>`, under mT5's name, with `_` for `-`: `mc4.iw`, `mc4.ru_Latn`;
`mc4_prefix_lm.<code>` and `mc4_full_lm.<code>` are the same pages for language models. Six
languages have another task for their pages in Latin script. Codes, splits and rates are those of
mT5 (https://arxiv.org/abs/2010.11934); tasks/data/mc4_examples.tsv has the source of the counts.
"""

from pathlib import Path

import seqio

from switch_jax.tasks import named_vocabularies
from switch_jax.tasks.building_blocks import LANGUAGE_OBJECTIVES, add_text_task, language_rate

COUNTS_FILE = Path(__file__).resolve().parent / "data" / "mc4_examples.tsv"


def read_counts() -> dict[str, int]:
    """Number of training examples by language code."""
    lines = COUNTS_FILE.read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {code: int(count) for code, count in rows}


TRAIN_EXAMPLES = read_counts()

for ending, steps in LANGUAGE_OBJECTIVES.items():
    mixture, rates = f"mc4{ending}", {}
    for code, count in TRAIN_EXAMPLES.items():
        source = seqio.TfdsDataSource(
            "c4/multilingual:3.0.1", splits={"train": code, "validation": f"{code}-validation"}
        )
        name = f"{mixture}.{code.replace('-', '_')}"
        add_text_task(name, steps, source, named_vocabularies.MT5)
        rates[name] = language_rate(count)
    seqio.MixtureRegistry.add(mixture, list(rates.items()))
