"""ARC's questions with their choices, and the accuracy of the generated answer."""

import pytest

from tests.tasks.records import preprocess, score, texts

RECORDS = [
    {
        "id": "q1",
        "question": "Which is a liquid?",
        "choices": {"text": ["iron", "Water", "air"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    {
        "id": "q2",
        "question": "At how many °C does it boil?",
        "choices": {"text": ["5", "-5", "50", "100 °C", "½"], "label": ["A", "B", "C", "D", "E"]},
        "answerKey": "D",
    },
    {
        "id": "q3",
        "question": "What is half?",
        "choices": {"text": ["½", "2"], "label": ["A", "B"]},
        "answerKey": "A",
    },
]


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge"])
def test_records_become_text(name):
    assert texts(preprocess(name, RECORDS)) == [
        (f"{name} question: Which is a liquid? choices: (A) iron (B) Water (C) air", "Water"),
        (
            f"{name} question: At how many °C does it boil? choices: (A) 5 (B) -5 (C) 50 "
            "(D) 100 °C (E) ½",
            "100 °C",
        ),
        (f"{name} question: What is half? choices: (A) ½ (B) 2", "½"),
    ]


def test_accuracy_of_the_generated_text():
    examples = preprocess("arc_easy", RECORDS)
    # As SentencePiece gives them back: half in three characters, degrees as they are.
    assert score("arc_easy", examples, ["water ", "100 °C", "1⁄2"]) == {"accuracy": 100}
    # A minus sign counts; a letter is no answer.
    assert score("arc_easy", examples, ["B", "-100 °C", "2"]) == {"accuracy": 0}
