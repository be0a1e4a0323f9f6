"""The tasks that only the studies read: `import benchmarks.tasks` in their gin files.

`large_english_span_corruption` (`make study`), `large_code_span_corruption` (`make long_study`),
both also as `_prefix_lm` and `_full_lm`, and the mixture `large_multilingual` (`make languages`)
are text that is not shipped: the scripts in benchmarks/corpora build it in runs/.

`factbook_facts` (`make downstream`) are facts of the Factbook as questions with the answer masked.
The inputs of a row are a question, as "what is the capital of Kenya? <extra_id_0>", and its targets
the answer, "<extra_id_0> Nairobi": span corruption of what is to be known alone, like the salient
span masking with which Roberts et al. (2020, arXiv 2002.08910) prepare T5 for closed-book
questions. The facts are those that `factbook_qa_open` asks for, from the training text of
`factbook_span_corruption`; `factbook_qa_cloze` asks for them in the same form.
"""

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import seqio
import t5.data.postprocessors
import tensorflow as tf
from t5.evaluation import metrics

from switch_jax.tasks import english, multilingual, offline
from switch_jax.tasks.building_blocks import (
    SPAN_CORRUPTION,
    TEXT_TO_TEXT,
    add_text_task,
    add_text_tasks,
    features,
    language_rate,
)
from switch_jax.utils.errors import UserError

SPLITS = ("train", "validation")
CODE_VOCABULARY = seqio.SentencePieceVocabulary(
    str(Path(__file__).parent / "corpora/code_1000.model"), extra_ids=100
)


def gzipped(files: Mapping[str, str]) -> seqio.DataSource:
    """The lines of gzipped files, by split."""
    return seqio.FileDataSource(english.read_lines, files)


add_text_tasks(
    "large_english",
    gzipped({split: f"runs/large_english/{split}.txt.gz" for split in SPLITS}),
    english.VOCABULARY,
)

# Plain text can be read from any place, so that it is shuffled as a whole, and resuming is quick.
add_text_tasks(
    "large_code",
    seqio.TextLineDataSource({split: f"runs/large_code/{split}.txt" for split in SPLITS}),
    CODE_VOCABULARY,
)


def built_files(code: str) -> dict[str, str]:
    return {split: f"runs/large_multilingual/{code}.{split}.txt.gz" for split in SPLITS}


def rate_of_built_text(task: seqio.Task) -> float:
    """As mT5's rate, with the size of the training file for the number of its examples.

    Raises:
      UserError: the text is not built.
    """
    file = Path(built_files(task.name.split(".")[1])["train"])
    if not file.exists():
        raise UserError(f"{task.name}: there is no file {file}: `make languages` builds it")
    return language_rate(file.stat().st_size)


LANGUAGES = tuple(multilingual.PASSAGES["train"])
for code in LANGUAGES:
    add_text_task(
        f"large_multilingual.{code}",
        SPAN_CORRUPTION,
        gzipped(built_files(code)),
        multilingual.VOCABULARY,
    )
seqio.MixtureRegistry.add(
    "large_multilingual", [(f"large_multilingual.{code}", rate_of_built_text) for code in LANGUAGES]
)

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
    with gzip.open(english.DATA / "factbook.train.txt.gz", "rt", encoding="utf-8") as passages:
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
    output_features=features(english.VOCABULARY),
    metric_fns=[],
)

seqio.MixtureRegistry.add(
    "english_and_facts", [("english_span_corruption", 1.0), ("factbook_facts", 4.0)]
)


@seqio.map_over_dataset
def masked_answer(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The question and its answer in the form of the rows of `factbook_facts`."""
    return {
        "inputs": tf.strings.join([record["question"], " <extra_id_0>"]),
        "targets": tf.strings.join(["<extra_id_0> ", record["answer"]["value"]]),
        "answers": record["answer"]["aliases"],
    }


def without_mask(answer: str, **example: Any) -> Any:
    """T5's postprocessing of answers, after the sentinel is taken away."""
    return t5.data.postprocessors.qa(answer.removeprefix("<extra_id_0>").strip(), **example)


offline.add_task(
    "factbook_qa_cloze",
    "trivia_qa/unfiltered.nocontext:1.1.0",
    masked_answer,
    without_mask,
    [metrics.trivia_qa],
    files="factbook_qa_open",
)
