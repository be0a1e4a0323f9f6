"""`switch_jax.load` and what it returns, against `switch_jax infer` and Hugging Face folders."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import switch_jax
from gin import config as gin
from switch_jax.cli import main
from switch_jax.errors import UserError
from tests.conversion.folders import (
    REPOSITORY,
    VOCABULARY,
    convert,
    with_vocabulary,
    write_folder,
)
from tests.conversion.t5x.checkpoints import t5x_tensors, write_checkpoint
from tests.conversion.test_convert import WIDE, WIDE_TENSORS

SMALL = ["MESH_DATA=1", "BATCH_SIZE=2", "TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}"]
TEXTS = ["Where is Paris?", "Who wrote it, and when <extra_id_0>?", "One."]
TARGETS = ["In France.", "Nobody", "Two and three"]
DECODING = {"num_beams": 3, "max_tokens": 5}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A Hugging Face folder of a Switch model."""
    folder = tmp_path_factory.mktemp("theirs") / "switch-tiny"
    return with_vocabulary(write_folder(folder, WIDE, WIDE_TENSORS))


@pytest.fixture(scope="module")
def run(theirs):
    """A run with the same parameters."""
    return convert(theirs, theirs.parent / "run", *(f"--gin.{binding}" for binding in SMALL))


@pytest.fixture(scope="module")
def model(run):
    return switch_jax.load(run)


def infer(run, folder, *flags):
    """What `switch_jax infer` answers."""
    records = [{"inputs": i, "targets": t} for i, t in zip(TEXTS, TARGETS, strict=True)]
    file, output = folder / "in.jsonl", folder / f"out{len(list(folder.iterdir()))}.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["infer", str(run), f"--input={file}", f"--output={output}", *flags]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_texts_and_scores_are_those_of_infer(model, run, tmp_path):
    greedy = [row["prediction"] for row in infer(run, tmp_path)]
    assert model.generate(TEXTS) == greedy
    assert len(set(greedy)) > 1 and all(greedy), "the model says different things"
    beams = [f"--{name}={value}" for name, value in DECODING.items()]
    assert model.generate(TEXTS, **DECODING) == [
        row["prediction"] for row in infer(run, tmp_path, *beams)
    ]
    sampling = {"temperature": 1.5, "top_k": 20, "seed": 3}
    sampled = model.generate(TEXTS, **sampling)
    flags = [f"--{name}={value}" for name, value in sampling.items()]
    assert sampled == [row["prediction"] for row in infer(run, tmp_path, *flags)] != greedy
    scores = model.score(TEXTS, TARGETS)
    np.testing.assert_array_equal(scores, [row["score"] for row in infer(run, tmp_path, "--score")])
    assert model.generate([]) == model.score([], []) == []


def test_it_shows_its_config_parameters_and_vocabularies(model):
    assert model.config.model.num_experts == WIDE["num_experts"]
    assert model.config.run.batch_size == 2 and model.config.data.lengths == (16, 8)
    table = model.parameters["token_embedding"]["embedding"]
    np.testing.assert_array_equal(table, WIDE_TENSORS["shared.weight"])
    ids = model.vocabularies["inputs"].encode("Where is Paris?")
    assert model.vocabularies["targets"].decode(ids) == "Where is Paris?"


def test_the_experts_of_a_text(model):
    """Against the model's own `choose_experts`, which is compared with transformers' router."""
    routing = switch_jax.route(model, TEXTS[0], TARGETS[0])
    vocabularies, sparse = model.vocabularies, model.config.model.sparse_layers
    for stack, name, text in ("encoder", "inputs", TEXTS[0]), ("decoder", "targets", TARGETS[0]):
        tokens, found = vocabularies[name].encode(text), routing[stack]
        ends = ("", "</s>") if stack == "encoder" else ("<start>", "")
        assert found.tokens[0].startswith(ends[0]) and found.tokens[-1].endswith(ends[1])
        own = found.tokens[:-1] if stack == "encoder" else found.tokens[1:]
        assert own == [vocabularies[name].tokenizer.IdToPiece(token) for token in tokens]
        assert found.cut == 0
        assert found.layers == sparse[stack]
        assert found.experts.shape == found.gates.shape == (len(sparse[stack]), len(tokens) + 1, 1)
        assert 1 / WIDE["num_experts"] < found.gates.min() and found.gates.max() <= 1
        line = str(found).splitlines()[1].split()
        assert line[-2:] == [str(found.experts[-1, 0, 0]), f"({found.gates[-1, 0, 0]:.2f})"]
    assert "".join(routing["encoder"].tokens) == TEXTS[0].replace(" ", "▁").join(["▁", "</s>"])
    alone = switch_jax.route(model, TEXTS[0])
    assert list(alone) == ["encoder"]
    np.testing.assert_array_equal(alone["encoder"].experts, routing["encoder"].experts)


def test_tokens_that_are_cut_off_are_counted(model):
    long = switch_jax.route(model, "One. " * 20, "Two ▁")
    pieces = model.vocabularies["inputs"].tokenizer.EncodeAsPieces("One. " * 20)
    assert long["encoder"].tokens == [*pieces[:15], "</s>"]
    left = len(pieces) - 15
    last = f"the text is longer by {left} tokens, which TASK_FEATURE_LENGTHS cuts off"
    assert long["encoder"].cut == left and str(long["encoder"]).splitlines()[-1] == last
    assert long["decoder"].cut == 0 and all(t.strip() for t in long["decoder"].tokens)


def test_a_text_that_is_cut_off_is_warned_of(model):
    encode = model.vocabularies["inputs"].encode
    long = "One. " * 20
    with pytest.warns(
        UserWarning, match=r"inputs\[1\] is longer by (\d+) tokens .*cut off$"
    ) as warned:
        model.generate([TEXTS[0], long])
    assert warned[0].filename == __file__
    left = len(encode(long)) - 15
    assert f"by {left} tokens than TASK_FEATURE_LENGTHS = {{'inputs': 16" in str(warned[0].message)
    with pytest.warns(UserWarning, match=r"inputs\[0\] .* and is cut off, as are 2 more$"):
        model.score([long, TEXTS[0]], [long, long])


def test_a_hugging_face_folder_answers_as_the_converted_one(model, theirs):
    unconverted = switch_jax.load(theirs, gin_bindings=SMALL)
    assert unconverted.generate(TEXTS) == model.generate(TEXTS)
    assert unconverted.score(TEXTS, TARGETS) == model.score(TEXTS, TARGETS)
    assert unconverted.config.model == model.config.model


def test_a_t5x_checkpoint_answers_as_its_twin(model, tmp_path):
    tensors = t5x_tensors(WIDE_TENSORS)
    del tensors["decoder/logits_dense/kernel"]  # they are tied
    folder = write_checkpoint(tmp_path / "base/checkpoint_7", tensors).parent
    (folder / "config.gin").write_text("from t5x import models\n")  # T5X's
    loaded = switch_jax.load(folder, gin_bindings=[*SMALL, f"VOCABULARY='{VOCABULARY}'"])
    assert loaded.generate(TEXTS) == model.generate(TEXTS)


def test_two_models_in_a_process_and_the_gin_of_the_user(model, run, theirs, tmp_path):
    gin.clear_config()
    gin.parse_config("MINE = 3\nDataConfig.random_seed = %MINE")
    before = gin.config_str()
    tensors = {**WIDE_TENSORS, "shared.weight": WIDE_TENSORS["shared.weight"][::-1].copy()}
    tensors = {
        n: tensors["shared.weight"] if t.shape == (1152, 32) else t for n, t in tensors.items()
    }
    folder = with_vocabulary(write_folder(tmp_path / "other", WIDE, tensors))
    expected = model.generate(TEXTS)
    other = switch_jax.load(folder, batch_size=4, gin_bindings=SMALL)
    again = switch_jax.load(run, checkpoint=0)
    assert gin.config_str() == before and "MINE" in before
    assert other.config.run.batch_size == 4 and again.config.run.batch_size == 2
    assert other.generate(TEXTS) != expected
    assert again.generate(TEXTS) == model.generate(TEXTS) == expected
    gin.clear_config()


def test_a_mesh_of_more_devices_than_the_process_has_leads_to_gin_bindings(run):
    with pytest.raises(UserError, match="= 16, but there are 8 cpu devices") as refused:
        switch_jax.load(run, gin_bindings=["MESH_DATA=4", "MESH_EXPERT=4"])
    bindings = str(refused.value).partition("; give gin_bindings=")[2]
    followed = switch_jax.load(run, gin_bindings=json.loads(bindings))
    assert followed.mesh.devices.size == 1


def test_the_example_of_the_docs_runs(run, tmp_path, monkeypatch):
    text = (REPOSITORY / "docs/evaluating.md").read_text()
    (example,) = re.findall(r"^    import switch_jax\n(?:(?:    .*)?\n)*", text, re.MULTILINE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/tuned").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.sub("^    ", "", example, flags=re.MULTILINE), names)  # noqa: S102
    assert isinstance(names["answers"][0], str) and names["scores"][0] < 0


def test_the_import_loads_nothing_else():
    program = (
        "import sys, switch_jax\n"
        "print(sorted({'jax', 'numpy', 'tensorflow', 'gin', 'switch_jax.api'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        switch_jax.lode  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "there is no folder none to take a model from: give the MODEL_DIR"),
        (("EMPTY",), "empty holds no model: a MODEL_DIR has a config.gin, a Hugging Face"),
        (("RUN", 7), "has no checkpoint of step 7: there are 0"),
        (("RUN", "newest"), "checkpoint = 'newest': write latest, best, or the number of a step"),
        (("RUN", "best"), "no checkpoint that was saved at a step with an evaluation"),
        (("BARE",), "bare has no checkpoint"),
        (("THEIRS", "best"), "switch-tiny is one model, without checkpoints: leave out 'best'"),
        (
            ("THEIRS",),
            "GROUP_SIZE = 8192 does not fit: a batch of 16 x 512 tokens makes 1 group of",
        ),
    ],
)
def test_mistakes_of_loading_are_one_line(arguments, message, run, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    (tmp_path / "empty").mkdir()
    (bare / "config.gin").write_text((run / "config.gin").read_text())
    paths = {"RUN": run, "THEIRS": theirs, "EMPTY": tmp_path / "empty", "BARE": bare}
    path, *checkpoint = arguments
    with pytest.raises(UserError) as error:
        switch_jax.load(paths.get(path, path), *checkpoint)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.score(["a", "b"], ["c"]), "2 inputs and 1 targets: give a target for each"),
        (lambda m: m.generate("a"), "inputs is one text: write a list of texts, for example inp"),
        (lambda m: m.score(["a"], "c"), "targets is one text: write a list of texts, for example"),
        (lambda m: switch_jax.route(m, ["a"]), "text is of type list: write one text"),
        (lambda m: switch_jax.route(m, "a", "a\ud800"), r"target has, at 1, '\ud800', half of a"),
        (lambda m: m.generate(iter("a")), "inputs is of type str_ascii_iterator: write a list"),
        (lambda m: m.generate(["a", 3]), r"inputs[1] is of type int: write a text"),
        (lambda m: m.generate(["a\ud800"]), r"inputs[0] has, at 1, '\ud800', half of a character"),
        (lambda m: m.generate(["a"], num_beams=0), "num_beams = 0: it must be at least 1"),
        (lambda m: m.generate(["a"], top_k=2), "top_k and top_p limit sampling, and at temperat"),
        (
            lambda m: m.generate(["a"], num_beams=10**9),
            "GiB: set max_tokens or num_beams lower",
        ),
    ],
)
def test_mistakes_of_calling_are_one_line(call, message, model):
    with pytest.raises(UserError) as error:
        call(model)
    assert message in str(error.value)


def test_a_run_with_another_vocabulary_is_refused(run):
    with pytest.raises(UserError, match=r"another vocabulary \(ByteVocabulary\) than .*run was"):
        switch_jax.load(run, gin_bindings=["VOCABULARY='byte'"])
