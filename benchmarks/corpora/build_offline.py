"""Builds the files of `switch_jax.tasks.offline` and `switch_jax.tasks.multilingual`.

    python benchmarks/corpora/build_offline.py SOURCES

SOURCES is a folder with the question sets, `<set>/train.jsonl`, `val.jsonl` and `test.jsonl`, and
the declarations, `udhr_mc4.jsonl` or `udhr_mc4.jsonl.xz` (tasks/data/README.md says what is in
them). In tasks/data, after `build_english.py`, it writes for each task
`<task>.<split>.jsonl.gz`, one record a line in the schema of the data set that the task is shaped
like; `udhr.<split>.jsonl.gz`; and `udhr_8000.model`, trained on the train passages only. The same
sources and the same sentencepiece give the same bytes.
"""

import argparse
import collections
import gzip
import json
import re
from pathlib import Path
from typing import Any

from build_english import OUTPUT, passages, read_documents, train_vocabulary, write_lines

Record = dict[str, Any]

SPLITS = {"train": "train", "val": "validation", "test": "test"}
# By field of a question about a country: what stands before the fact in the Factbook's passages.
LABELS = {
    "capital": "Capital, name: ",
    "high": "Elevation extremes, highest point: ",
    "low": "Elevation extremes, lowest point: ",
    "adj": "Nationality, adjective: ",
    "tld": "Internet country code: ",
    "currency": "Exchange rates: ",
    "indep": "Independence: ",
    "anthem": 'National anthem, name: "',
}
# What a question asks about: the country; its capital or internet code where it asks for that.
SUBJECT = re.compile(
    r"\b(?:people of|capital city|internet code|capital of|point in|used in|code of|did|anthem of) "
    r"(.+?)(?: become independent| called)?\?$"
)
HELD_OUT_LINES = 8  # articles 28 to 30 with their headings, in each of the declarations


# By task: the folder of its rows.
SUPER_GLUE = {
    "factbook_boolq": "boolq_factbook",
    "factbook_cb": "cb_factbook",
    "factbook_multirc": "multirc_factbook",
    "factbook_record": "record_factbook",
    "wordnet_wic": "wic",
}


def super_glue_records(task: str, row: Record) -> list[Record]:
    """The row in the schema of the data set; of MultiRC a record for each answer."""
    if task == "factbook_multirc":
        return [
            {
                "paragraph": row["paragraph"],
                "question": row["question"],
                "answer": answer["text"],
                "label": str(bool(answer["label"])),
                "idx": {"paragraph": row["idx"], "question": row["idx"], "answer": number},
            }
            for number, answer in enumerate(row["answers"])
        ]
    if task == "factbook_record":
        return [row | {"idx": {"passage": row["idx"], "query": row["idx"]}}]
    if task == "factbook_cb":
        return [row]
    return [{k: x for k, x in row.items() if k != "pos"} | {"label": str(row["label"])}]


def trivia_record(row: Record, value: str) -> Record:
    """All that TriviaQA's schema has: without pages, search results and linked entities."""
    return {
        "question": row["question"],
        "question_id": f"{row['field']}_{row['idx']}",
        "question_source": "World Factbook",
        "answer": {
            "value": value,
            "aliases": row["answers"],
            "normalized_value": value.lower(),
            "normalized_aliases": [answer.lower() for answer in row["answers"]],
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "type": "",
        },
        "entity_pages": [],
        "search_results": [],
    }


def subject(question: str) -> str:
    (found,) = SUBJECT.findall(question)
    return found


def fact(row: Record) -> tuple[str, str, list[str]]:
    """(Country, field, values): the same country and field from whichever side it is asked."""
    field, of, _ = row["field"].partition("_of")
    if of:
        return row["answers"][0], field, [subject(row["question"])]
    return subject(row["question"]), field, row["answers"]


def known_answer(row: Record, text: list[str]) -> str | None:
    """The answer in the words of the text; None where no passage of the country gives it.

    Args:
      row: question, answers, field.
      text: passages, each with the country's name first.
    """
    country, field, values = fact(row)
    about = [passage for passage in text if passage.startswith(f"{country}. ")]
    found = [v for v in values if any(f"{LABELS[field]}{v}" in passage for passage in about)]
    if not found:
        return None
    return country if field != row["field"] else max(found, key=len)


def closed_book(sources: Path, text: list[str]) -> dict[str, list[Record]]:
    """Records by split: questions with one answer, which the text gives.

    A fact that is asked for in the test set, from whichever side, is left out of the others, and
    one of the validation set out of the training set.
    """
    rows = {split: list(read_documents(sources / "triviaqa_factbook", split)) for split in SPLITS}
    times = collections.Counter(row["question"] for some in rows.values() for row in some)
    records: dict[str, list[Record]] = {}
    asked: set[tuple[str, str]] = set()
    for split in ("test", "val", "train"):
        answered = [
            (row, answer)
            for row in rows[split]
            if times[row["question"]] == 1
            and fact(row)[:2] not in asked
            and (answer := known_answer(row, text))
        ]
        asked |= {fact(row)[:2] for row, _ in answered}
        records[split] = [trivia_record(row, answer) for row, answer in answered]
    return records


def declarations(sources: Path) -> dict[str, list[Record]]:
    """Passages by split, each with the code of its language in mC4."""
    records: dict[str, list[Record]] = {"train": [], "validation": []}
    for document in read_documents(sources, "udhr_mc4"):
        lines = document["text"].split("\n")
        parts = {"train": lines[:-HELD_OUT_LINES], "validation": lines[-HELD_OUT_LINES:]}
        for split, part in parts.items():
            records[split] += [
                {"language": document["lang"], "text": passage} for passage in passages(part, "")
            ]
    return records


def write_records(name: str, records: list[Record]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    write_lines(OUTPUT / f"{name}.jsonl.gz", lines, "records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path)
    sources = parser.parse_args().sources
    with gzip.open(OUTPUT / "factbook.train.txt.gz", "rt", encoding="utf-8") as lines:
        text = list(lines)
    for split, records in closed_book(sources, text).items():
        write_records(f"factbook_qa_open.{SPLITS[split]}", records)
    for name, folder in SUPER_GLUE.items():
        for split in SPLITS:
            rows = read_documents(sources / folder, split)
            records = [record for row in rows for record in super_glue_records(name, row)]
            write_records(f"{name}.{SPLITS[split]}", records)
    texts = declarations(sources)
    for split, records in texts.items():
        write_records(f"udhr.{split}", records)
    train = [record["text"] for record in texts["train"]]
    model = train_vocabulary(train, pieces=8000, byte_fallback=True)
    (OUTPUT / "udhr_8000.model").write_bytes(model)


if __name__ == "__main__":
    main()
