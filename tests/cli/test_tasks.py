from switch_jax.cli import main
from switch_jax.data.catalogue.vocabularies import get_vocabulary
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused


def test_without_a_name_lists_the_tasks(capsys):
    assert main(["tasks"]) == 0
    assert "english_span_corruption" in capsys.readouterr().out


def test_with_a_name_shows_examples_as_the_model_sees_them(capsys):
    arguments = ["--split", "train", "--examples", "1", "--inputs", "64", "--targets", "16"]
    assert main(["tasks", "factbook_span_corruption", *arguments]) == 0
    output = capsys.readouterr().out
    assert output.startswith("factbook_span_corruption, train, example 1\n  inputs, 64 tokens: ")
    assert output.count("<extra_id_0>") == 2  # once in the inputs, once in the targets


def test_mistakes_are_one_line_on_standard_error(capsys):
    for arguments, expected in [
        (["bible_span_coruption"], "did you mean bible_span_corruption"),
        (["bible_span_corruption", "--targets", "8"], "which takes 21 + 7 + 1 = 29"),
        (["--import", "no_such_module"], "cannot import 'no_such_module'"),
        (["vocabulary"], "write one task or mixture, alone or after `vocabulary`"),
        (["vocabulary", "bible_span_corruption", "--size", "500"], "--size 8000 --output FILE"),
        (
            ["vocabulary", "bible_span_corruption", "--output", "no.model", "--size", "-5"],
            "--size = -5: it must be at least 4",
        ),
        (["bible_span_corruption", "--vocabulary", "/no.model"], "is found at /no.model"),
        (["bible_span_corruption", "--examples", "-1"], "--examples = -1: it must be at least 1"),
    ]:
        assert expected in refused(capsys, "tasks", *arguments)


def test_a_vocabulary_is_trained_and_serves_the_task(capsys, tmp_path):
    path = str(tmp_path / "new" / "own.model")
    arguments = ["bible_span_corruption", "--size", "300", "--examples", "60", "--output", path]
    assert main(["tasks", "vocabulary", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "NUM_EMBEDDINGS to 400 or more" in printed
    assert get_vocabulary(path).vocab_size == 300 + 100
    assert main(["tasks", "bible_span_corruption", "--vocabulary", path, "--examples", "1"]) == 0
    assert "targets, 29 tokens: 399 " in capsys.readouterr().out  # <extra_id_0> is the last id
    assert f"{path} exists already" in refused(capsys, "tasks", "vocabulary", *arguments)


def test_bytes_are_the_default_but_in_small_vocabularies(monkeypatch, tmp_path):
    trained = []

    def train(text, size, byte_fallback):
        trained.append(byte_fallback)
        raise UserError("trained")

    monkeypatch.setattr("switch_jax.data.catalogue.vocabulary_training.train", train)
    arguments = ["bible_span_corruption", "--examples=1", "--output", str(tmp_path / "own")]
    for more in (["8000"], ["2047"], ["2047", "--byte_fallback"], ["8000", "--no-byte_fallback"]):
        assert main(["tasks", "vocabulary", *arguments, "--size", *more]) == 2
    assert trained == [True, False, True, False]
