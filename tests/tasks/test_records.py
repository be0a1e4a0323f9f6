"""Records of each data set as text, and what its score makes of some answers, all by hand."""

from typing import Any, NamedTuple

import pytest

from switch_jax.data.catalogue.registry import get_mixture_or_task
from tests.tasks.records import preprocess, score, texts


class Family(NamedTuple):
    """Tasks that make the same of the same records.

    Attributes:
      names: of the tasks; "{}" in the texts is the name.
      records: in the schema of the data set.
      texts: inputs and targets.
      scores: answers to the first records, and all metrics of them.
      data_set: of TFDS; None: the one that the task reads.
    """

    names: tuple[str, ...]
    records: list[dict[str, Any]]
    texts: list[tuple[str, str]]
    scores: list[tuple[list[str], dict[str, float]]]
    data_set: str | None = None


TRIVIA = Family(
    ("trivia_qa_open", "factbook_qa_open"),
    [
        {
            "question": "Who wrote Kim?",
            "answer": {"value": "Rudyard Kipling", "aliases": ["Rudyard Kipling", "Kipling"]},
        },
        {
            "question": "Which film won in 1969?",
            "answer": {"value": "The Spy-Kids", "aliases": ["The Spy-Kids"]},
        },
    ],
    [
        ("trivia_qa question: Who wrote Kim?", "Rudyard Kipling"),
        ("trivia_qa question: Which film won in 1969?", "The Spy-Kids"),
    ],
    # Aliases count, and punctuation is replaced by spaces.
    [
        (["kipling", "a spy kids!"], {"em": 100, "f1": 100}),
        (["Kim", "spykids"], {"em": 0, "f1": 0}),
    ],
    "trivia_qa/unfiltered.nocontext:1.1.0",
)
NATURAL = Family(
    ("natural_questions_open",),
    [
        {
            "question": "who got the first nobel prize in physics",
            "answer": ["Wilhelm Röntgen", "W. R."],
        },
        {"question": "what is the capital", "answer": ["Spy-Kids"]},
    ],
    [
        ("nq question: who got the first nobel prize in physics", "Wilhelm Röntgen"),
        ("nq question: what is the capital", "Spy-Kids"),
    ],
    # All answers count, and punctuation is deleted. In the second case one of two words is right,
    # in one of two examples: precision 1, recall 1/2.
    [
        (["the W R", "an spykids"], {"em": 100, "f1": 100}),
        (["röntgen", "spy kids"], {"em": 0, "f1": 100 * (2 / 3) / 2}),
    ],
)
WEB = Family(
    ("web_questions_open",),
    [
        {
            "question": "what is the name of justin bieber brother?",
            "answers": ["Jazmyn Bieber", "Jaxon Bieber"],
        }
    ],
    [("wq question: what is the name of justin bieber brother?", "Jazmyn Bieber")],
    [(["jaxon  bieber."], {"em": 100, "f1": 100})],
)
ANLI = Family(
    ("anli_r3",),
    [
        {"context": "Hall was born in 1949.", "hypothesis": "Hall lives.", "label": "e"},
        {"context": "It rains.", "hypothesis": "It snows.", "label": "c"},
        {"context": "It rains.", "hypothesis": "She is late.", "label": "n"},
    ],
    # In the words of T5's MNLI.
    [
        ("anli hypothesis: Hall lives. premise: Hall was born in 1949.", "entailment"),
        ("anli hypothesis: It snows. premise: It rains.", "contradiction"),
        ("anli hypothesis: She is late. premise: It rains.", "neutral"),
    ],
    [(["entailment", "neutral", "no class"], {"accuracy": 100 / 3})],
)
ARC = Family(
    ("arc_easy", "arc_challenge"),
    [
        {
            "question": "Which is a liquid?",
            "choices": {"text": ["iron", "Water", "air"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
        {
            "question": "At how many °C does it boil?",
            "choices": {"text": ["5", "-5", "50", "100 °C", "½"], "label": [*"ABCDE"]},
            "answerKey": "D",
        },
        {
            "question": "What is half?",
            "choices": {"text": ["½", "2"], "label": ["A", "B"]},
            "answerKey": "A",
        },
    ],
    [
        ("{} question: Which is a liquid? choices: (A) iron (B) Water (C) air", "Water"),
        (
            "{} question: At how many °C does it boil? choices: (A) 5 (B) -5 (C) 50 "
            "(D) 100 °C (E) ½",
            "100 °C",
        ),
        ("{} question: What is half? choices: (A) ½ (B) 2", "½"),
    ],
    # As SentencePiece gives them back: half in three characters, degrees as they are. A minus sign
    # counts; a letter is no answer.
    [
        (["water ", "100 °C", "1⁄2"], {"accuracy": 100}),
        (["B", "-100 °C", "2"], {"accuracy": 0}),
    ],
)
SENTENCE = "The trophy doesn't fit into the suitcase because the _ is too large."
WINOGRANDE = Family(
    ("winogrande_xl",),
    [
        {"sentence": SENTENCE, "option1": "trophy", "option2": "suitcase", "label": "1"},
        {"sentence": "Ian gave _ a bow.", "option1": "Ian", "option2": "Dennis", "label": "2"},
        {"sentence": "_ slept.", "option1": "Ann", "option2": "Sue", "label": -1},
    ],
    [
        (f"winogrande sentence: {SENTENCE} option1: trophy option2: suitcase", "trophy"),
        ("winogrande sentence: Ian gave _ a bow. option1: Ian option2: Dennis", "Dennis"),
        ("winogrande sentence: _ slept. option1: Ann option2: Sue", "<unk>"),
    ],
    [(["Trophy", "Ian"], {"accuracy": 50})],
)
XSUM = Family(
    ("xsum",),
    [{"document": "A cat sat down.\nIt slept.", "summary": "The cat sat on the mat."}],
    [("summarize: A cat sat down.\nIt slept.", "The cat sat on the mat.")],
    # Of 6 words and 5 pairs in the target, 'the cat sat' has 3 and 2, all of its own.
    [(["The cat sat"], {"rouge1": 600 / 9, "rouge2": 400 / 7, "rougeLsum": 600 / 9})],
)
BOOLQ = Family(
    ("super_glue_boolq_v102", "factbook_boolq"),
    [
        {"question": "is it so", "passage": "It is so.", "label": "True"},
        {"question": "is it", "passage": "It is not.", "label": "False"},
    ],
    [
        ("boolq passage: It is so. question: is it so", "True"),
        ("boolq passage: It is not. question: is it", "False"),
    ],
    [(["True", "false"], {"accuracy": 50})],
    "super_glue/boolq:1.0.2",
)
CB = Family(
    ("factbook_cb",),
    [
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": "contradiction"},
        {"premise": "It rains.", "hypothesis": "She is late.", "label": "neutral"},
    ],
    [
        ("cb hypothesis: It is wet. premise: It rains.", "entailment"),
        ("cb hypothesis: It is dry. premise: It rains.", "contradiction"),
        ("cb hypothesis: She is late. premise: It rains.", "neutral"),
    ],
    # F1 of the classes: 2/3 (precision 1/2, recall 1), 1 and 0.
    [
        (
            ["entailment", "contradiction", "entailment"],
            {"mean_3class_f1": 100 * (2 / 3 + 1) / 3, "accuracy": 200 / 3},
        )
    ],
    "super_glue/cb:1.0.2",
)
ANSWERS = [(0, "Niger", "True"), (0, "Palau", "False"), (1, "Chad", "False")]
MULTIRC = Family(
    ("factbook_multirc",),
    [
        {
            "paragraph": "<b>Sent 1:</b> Mali borders Niger.<br>It is large.",
            "question": "Which countries border Mali?",
            "answer": answer,
            "label": label,
            "idx": {"paragraph": 0, "question": question, "answer": number},
        }
        for number, (question, answer, label) in enumerate(ANSWERS)
    ],
    [
        (
            f"multirc question: Which countries border Mali? answer: {answer} "
            "paragraph: Sent 1: Mali borders Niger. It is large.",
            label,
        )
        for _, answer, label in ANSWERS
    ],
    # One of two answers found true is so, none is missed; one of two questions wholly right.
    [(["True", "True", "False"], {"f1": 100 * 2 / 3, "exact_match": 50})],
    "super_glue/multirc:1.0.2",
)
ASKED = "record query: @placeholder is a city. entities: Norway, Oslo passage: Oslo is in Norway."
RECORD = Family(
    ("factbook_record",),
    [
        {
            "passage": "Oslo is in Norway.\n@highlight\nIt is old",
            "query": "@placeholder is a city.",
            "entities": ["Norway", "Oslo"],
            "answers": ["Oslo", "City of Oslo"],
            "idx": {"passage": 0, "query": 0},
        }
    ],
    [(f"{ASKED} It is old", "Oslo"), (f"{ASKED} It is old", "City of Oslo")],
    # One query, asked once for each of its answers, counts once.
    [(["city of oslo", "x"], {"em": 100, "f1": 100}), (["Norway", "Oslo"], {"em": 0, "f1": 0})],
    "super_glue/record:1.0.2",
)
WIC = Family(
    ("wordnet_wic",),
    [{"word": "run", "sentence1": "He ran.", "sentence2": "Run a shop.", "label": "False"}],
    [("wic sentence1: He ran. sentence2: Run a shop. word: run", "False")],
    [(["False"], {"accuracy": 100})],
    "super_glue/wic:1.0.2",
)
FAMILIES = [TRIVIA, NATURAL, WEB, ANLI, ARC, WINOGRANDE, XSUM, BOOLQ, CB, MULTIRC, RECORD, WIC]


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for family in FAMILIES for name in family.names]
)
def test_records_become_text_and_answers_are_scored(name, family):
    examples = preprocess(name, family.records, family.data_set)
    assert texts(examples) == [(inputs.format(name), to) for inputs, to in family.texts]
    for answers, expected in family.scores:
        found = score(name, examples[: len(answers)], answers)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [
        ("trivia_qa_open", "train[:78785]", "train[78785:]", "validation"),
        ("natural_questions_open", "train[:79168]", "train[79168:]", "validation"),
        ("web_questions_open", "train[:3417]", "train[3417:]", "test"),
        ("winogrande_xs", "train_xs", "validation", "test"),
        ("winogrande_xl", "train_xl", "validation", "test"),
    ],
)
def test_splits_are_those_of_the_data_set_or_parts_of_them(name, train, validation, test):
    data_set = get_mixture_or_task(name).source.tfds_dataset
    splits = [data_set._map_split(split) for split in ("train", "validation", "test")]
    assert splits == [train, validation, test]
