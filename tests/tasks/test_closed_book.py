"""Questions without a context, their splits, and the exact match with the best of all answers."""

import pytest

from switch_jax.data.registry import mixing_rates, provider, tasks_of
from tests.tasks.records import preprocess, score, texts

NO_PAGES = {"doc_source": [], "filename": [], "title": [], "wiki_context": []}
NO_RESULTS = {
    key: [] for key in ("description", "filename", "rank", "title", "url", "search_context")
}


def trivia(question: str, value: str, aliases: list[str]) -> dict:
    answer = dict.fromkeys(
        ["matched_wiki_entity_name", "normalized_matched_wiki_entity_name", "type"], ""
    )
    answer |= {"value": value, "normalized_value": value.lower()}
    answer |= {"aliases": aliases, "normalized_aliases": [alias.lower() for alias in aliases]}
    return {
        "question": question,
        "question_id": "tc_1",
        "question_source": "http://www.triviacountry.com/",
        "entity_pages": NO_PAGES,
        "search_results": NO_RESULTS,
        "answer": answer,
    }


TRIVIA = [
    trivia("Who wrote Kim?", "Rudyard Kipling", ["Rudyard Kipling", "Kipling", "R. Kipling"]),
    trivia("Which film won in 1969?", "The Spy-Kids", ["The Spy-Kids"]),
]
NATURAL = [
    {
        "question": "who got the first nobel prize in physics",
        "answer": ["Wilhelm Röntgen", "W. R."],
    },
    {"question": "what is the capital", "answer": ["Spy-Kids"]},
]
WEB = [
    {
        "url": "http://www.freebase.com/view/en/justin_bieber",
        "question": "what is the name of justin bieber brother?",
        "answers": ["Jazmyn Bieber", "Jaxon Bieber"],
    }
]


def test_records_become_text():
    assert texts(preprocess("trivia_qa_open", TRIVIA)) == [
        ("trivia_qa question: Who wrote Kim?", "Rudyard Kipling"),
        ("trivia_qa question: Which film won in 1969?", "The Spy-Kids"),
    ]
    assert texts(preprocess("natural_questions_open", NATURAL)) == [
        ("nq question: who got the first nobel prize in physics", "Wilhelm Röntgen"),
        ("nq question: what is the capital", "Spy-Kids"),
    ]
    assert texts(preprocess("web_questions_open", WEB)) == [
        ("wq question: what is the name of justin bieber brother?", "Jazmyn Bieber")
    ]


def test_trivia_qa_takes_aliases_and_replaces_punctuation_by_spaces():
    examples = preprocess("trivia_qa_open", TRIVIA)
    assert score("trivia_qa_open", examples, ["kipling", "a spy kids!"])["em"] == 100
    assert score("trivia_qa_open", examples, ["Kim", "spykids"]) == {"em": 0, "f1": 0}


def test_natural_questions_take_all_answers_and_delete_punctuation():
    examples = preprocess("natural_questions_open", NATURAL)
    assert score("natural_questions_open", examples, ["the W R", "an spykids"])["em"] == 100
    # One of two words right, in one of two examples: precision 1, recall 1/2.
    found = score("natural_questions_open", examples, ["röntgen", "spy kids"])
    assert found == {"em": 0, "f1": pytest.approx(100 * (2 / 3) / 2)}


def test_web_questions_take_all_answers():
    examples = preprocess("web_questions_open", WEB)
    assert score("web_questions_open", examples, ["jaxon  bieber."])["em"] == 100


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [
        ("trivia_qa_open", "train[:78785]", "train[78785:]", "validation"),
        ("natural_questions_open", "train[:79168]", "train[79168:]", "validation"),
        ("web_questions_open", "train[:3417]", "train[3417:]", "test"),
    ],
)
def test_splits(name, train, validation, test):
    data_set = provider(name).source.tfds_dataset
    splits = [data_set._map_split(split) for split in ("train", "validation", "test")]
    assert splits == [train, validation, test]


def test_the_mixture_is_proportional_to_the_training_examples():
    tasks = tasks_of("closed_book_qa")
    rates = mixing_rates("closed_book_qa", tasks)
    assert {task.name: rate for task, rate in zip(tasks, rates, strict=True)} == {
        "trivia_qa_open": 78785,
        "natural_questions_open": 79168,
        "web_questions_open": 3417,
    }
