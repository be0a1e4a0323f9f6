from switch_jax.cli import main


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
        (["bible_span_corruption", "--targets", "8"], "write targets of at least 29"),
        (["--import", "no_such_module"], "cannot import 'no_such_module'"),
    ]:
        assert main(["tasks", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert expected in captured.err
