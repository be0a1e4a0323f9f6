"""mC4: 107 tasks in 101 languages and their mixtures (section 4.3); span corruption as mT5 has it.

The task of a language is `mc4.<code>`, under mT5's name, with `_` for `-`: `mc4.iw`, `mc4.ru_Latn`;
`mc4_prefix_lm.<code>` and `mc4_full_lm.<code>` are the same pages for language models. Those of
`mc4_json`, `mc4_json_prefix_lm` and `mc4_json_full_lm` read the files of allenai/c4. Six
languages have another task for their pages in Latin script. Codes, splits and rates are those of
mT5 (https://arxiv.org/abs/2010.11934); tasks/data/mc4_examples.tsv has the source of the counts.
"""

from pathlib import Path

import seqio

from switch_jax.tasks import named_vocabularies
from switch_jax.tasks.building_blocks import add_language_tasks
from switch_jax.tasks.c4_files import C4Files

COUNTS_FILE = Path(__file__).resolve().parent / "data" / "mc4_examples.tsv"


def read_counts() -> dict[str, int]:
    """Number of training examples by language code."""
    lines = COUNTS_FILE.read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {code: int(count) for code, count in rows}


TRAIN_EXAMPLES = read_counts()


def prepared_by_tfds(code: str) -> seqio.DataSource:
    splits = {"train": code, "validation": f"{code}-validation"}
    return seqio.TfdsDataSource("c4/multilingual:3.0.1", splits=splits)


def json_files(code: str) -> seqio.DataSource:
    names = {"train": f"c4-{code}.tfrecord-*", "validation": f"c4-{code}-validation.tfrecord-*"}
    return C4Files({split: f"multilingual/{name}" for split, name in names.items()})


for family, source_of in {"mc4": prepared_by_tfds, "mc4_json": json_files}.items():
    add_language_tasks(family, source_of, TRAIN_EXAMPLES, named_vocabularies.MT5)
