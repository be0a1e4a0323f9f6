"""Facts of the Factbook as questions with the answer masked, for pretraining.

The inputs of a row are a question, as "what is the capital of Kenya? <extra_id_0>", and its targets
the answer, "<extra_id_0> Nairobi": span corruption of what is to be known alone, like the salient
span masking with which Roberts et al. (2020, arXiv 2002.08910) prepare T5 for closed-book
questions. The facts are those that `factbook_qa_open` asks for, from the training text of
`factbook_span_corruption`.
"""

import gzip
import re
from collections.abc import Iterator

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import TEXT_TO_TEXT, features
from switch_jax.tasks.english import DATA, VOCABULARY

# By field of the Factbook: the question about a country.
QUESTIONS = {
    "Capital, name": "what is the capital of {}?",
    "Elevation extremes, highest point": "what is the highest point in {}?",
    "Elevation extremes, lowest point": "what is the lowest point in {}?",
    "Exchange rates": "what currency is used in {}?",
    "Independence": "when did {} become independent?",
    "Internet country code": "what is the internet country code of {}?",
    "National anthem, name": "what is the national anthem of {} called?",
    "Nationality, adjective": "what adjective is used for the people of {}?",
}
# The same from the other side, where the answer names one country.
REVERSED = {
    "Capital, name": "which country has the capital city {}?",
    "Internet country code": "which country uses the internet code {}?",
}
VALUE_LENGTH = 40  # characters, at most
# Between two facts of a passage: a fact begins with its name and a colon.
NEXT_FACT = re.compile(r"(?<=\.) (?=[A-Z][^.:;]*: )")
# A title in quotes, or else what stands before an explanation, another value or a height in metres.
VALUE = re.compile(r'"(?P<title>.+?)"(?!\w)|(?P<value>.+?)(?= \(|[;:,]| note\b| -?[\d,.]+ m\b|$)')


def read_facts() -> Iterator[tuple[str, str, str]]:
    """Every fact of QUESTIONS as ("Kenya", "Capital, name", "Nairobi")."""
    with gzip.open(DATA / "factbook.train.txt.gz", "rt", encoding="utf-8") as passages:
        for passage in passages:
            country, facts = passage.rstrip("\n").split(". ", 1)
            for fact in NEXT_FACT.split(facts):
                field, _, text = fact.rstrip(".").partition(": ")
                if field in QUESTIONS and (found := VALUE.match(text)):
                    value = found["title"] or found["value"]
                    if len(value) <= VALUE_LENGTH:
                        yield country, field, value


def read_questions() -> Iterator[tuple[str, str]]:
    """(Question, answer) of every fact, and of some from the other side too."""
    for country, field, value in read_facts():
        yield QUESTIONS[field].format(country), value
        if field in REVERSED:
            yield REVERSED[field].format(value), country


def facts_dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    """Rows of `inputs` and `targets`, both text; the arguments are seqio's."""
    questions, answers = zip(*read_questions(), strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {
            "inputs": [f"{question} <extra_id_0>" for question in questions],
            "targets": [f"<extra_id_0> {answer}" for answer in answers],
        }
    )


seqio.TaskRegistry.add(
    "factbook_facts",
    source=seqio.FunctionDataSource(facts_dataset, splits=("train",)),
    preprocessors=[*TEXT_TO_TEXT],
    output_features=features(VOCABULARY),
    metric_fns=[],
)

seqio.MixtureRegistry.add(
    "english_and_facts", [("english_span_corruption", 1.0), ("factbook_facts", 4.0)]
)
