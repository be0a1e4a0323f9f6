"""`switch_jax export`: the folder runs without switch_jax, and answers as `infer` does."""

import json
import shutil
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

from switch_jax.cli import main
from switch_jax.config import Config, DataConfig, ModelConfig, RunConfig
from switch_jax.inference import DecodingConfig
from switch_jax.serving.program import export_program
from switch_jax.storage import list_names
from tests.conversion.folders import convert, with_vocabulary, write_folder
from tests.conversion.test_convert import WIDE, WIDE_TENSORS, Stopped
from tests.storage.copies import copy_files

# Groups of two rows, whose experts have room for half of the tokens if all are real.
SMALL = [
    *("MESH_DATA=1", "BATCH_SIZE=4", "GROUP_SIZE=32", "EVAL_EXPERT_CAPACITY_FACTOR=0.5"),
    *("MIN_EXPERT_CAPACITY=1", "TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}"),
]
TEXTS = [
    "Where is Paris?",
    "Who wrote it, and when was it first <extra_id_0> printed, and where, and for whom?",
    "One.",
    "",
    "É is no piece of it",
]
PROGRAM = """
import json, sys
for name in ("switch_jax", "tensorflow", "seqio", "flax", "t5", "gin"):
    sys.modules[name] = None  # importing it would be an ImportError
sys.path.insert(0, sys.argv[1])
import serve
texts = json.loads(sys.argv[2])
rest = serve.generate(texts[2:], first_id=2)
print(json.dumps([serve.generate(texts), serve.generate(texts[:2]), rest]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    theirs = with_vocabulary(write_folder(folder / "switch-tiny", WIDE, WIDE_TENSORS))
    return convert(theirs, folder / "run", *(f"--gin.{binding}" for binding in SMALL))


@pytest.fixture(scope="module")
def served(run):
    """An export of greedy decoding."""
    assert main(["export", str(run), str(run.parent / "served")]) == 0
    return run.parent / "served"


def infer(run, folder, flags):
    file, output = folder / "in.jsonl", folder / "out.jsonl"
    file.write_text("".join(json.dumps({"inputs": text}) + "\n" for text in TEXTS))
    assert main(["infer", str(run), f"--input={file}", f"--output={output}", *flags]) == 0
    return [json.loads(line)["prediction"] for line in output.read_text().splitlines()]


def answers(folder):
    """Those to all texts, to the first two and to the others, of a process without switch_jax."""
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "flags",
    [
        [],
        pytest.param(["--num_beams=3", "--max_tokens=6"], marks=pytest.mark.slow),
        pytest.param(["--temperature=1.5", "--top_p=0.9", "--seed=5"], marks=pytest.mark.slow),
    ],
    ids=["greedy", "beams", "sampling"],
)
def test_the_folder_answers_as_infer_without_switch_jax(flags, run, served, tmp_path):
    folder = tmp_path / "served" if flags else served
    if flags:
        assert main(["export", str(run), str(folder), "--platforms=cpu", *flags]) == 0
    expected = infer(run, tmp_path, flags)
    assert len(set(expected)) > 3, "the model says different things"
    whole, first_two, others = answers(folder)
    assert whole == expected
    assert first_two == expected[:2]
    assert others == expected[2:]


def test_a_folder_in_a_bucket_is_the_same(run, served, bucket_path, capsys):
    own, target = copy_files(run, bucket_path / "run"), bucket_path / "served"
    assert main(["export", str(own), str(target)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"copy it: gcloud storage cp -r {target} .",
        "run it: python served/serve.py < questions.txt",
    ]
    for file in served.iterdir():
        if file.name != "predict.bin":  # it names where its code lies
            assert (target / file.name).read_bytes() == file.read_bytes(), file.name
    assert len(list_names(target)) == 5


def test_the_script_answers_lines(served):
    command = [sys.executable, str(served / "serve.py")]
    done = subprocess.run(command, input="\n".join(TEXTS), capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == len(TEXTS), done.stderr


def test_what_is_in_the_folder(served, run):
    files = {file.name for file in served.iterdir()}
    assert files == {
        *("predict.bin", "parameters.safetensors", "spiece.model", "settings.json", "serve.py")
    }
    settings = json.loads((served / "settings.json").read_text())
    assert settings == {
        "batch_multiple": 2,
        "input_length": 16,
        "decoding": "greedy, at most 8 tokens",
        "platforms": ["cpu", "cuda", "tpu"],
        "jax": jax.__version__,
    }
    program = export.deserialize(bytearray((served / "predict.bin").read_bytes()))
    assert program.nr_devices == 1 and program.platforms == ("cpu", "cuda", "tpu")
    tokens, *_ = [s for s in program.in_avals if s.dtype == np.int32]
    assert str(tokens.shape) == "(2*b, 16)"
    assert "tpu_custom_call" not in program.mlir_module()
    with pytest.raises(ValueError, match=r"2\*b"):
        parameters = load_file(served / "parameters.safetensors")
        program.call(parameters, np.zeros((3, 16), np.int32), np.arange(3, dtype=np.int32))


def test_parameters_are_stored_as_they_compute(served):
    found = load_file(served / "parameters.safetensors")
    table = found["token_embedding.embedding"]
    np.testing.assert_array_equal(table, WIDE_TENSORS["shared.weight"])
    experts = found["encoder.blocks.layer_1.feed_forward.wi_0"]  # [blocks, E, D, F]
    theirs = WIDE_TENSORS["encoder.block.1.layer.1.mlp.experts.expert_2.wi.weight"]  # [F, D]
    assert experts.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(experts[0, 2], theirs.T.astype(ml_dtypes.bfloat16))
    router = found["encoder.blocks.layer_1.feed_forward.router"]  # [blocks, D, E]
    theirs = WIDE_TENSORS["encoder.block.1.layer.1.mlp.router.classifier.weight"]  # [E, D]
    np.testing.assert_array_equal(router[0], theirs.T)
    assert router.dtype == np.float32


@pytest.mark.parametrize(
    ("experts", "sparse_layers", "group_size", "batch_size", "multiple"),
    [
        (0, None, 64, 6, 1),
        (4, 0, 12, 6, 1),  # in decoding the decoder's experts have no groups
        (4, None, 64, 6, 3),
        (4, None, 64, 8, 4),
        (4, None, 8, 6, 1),
        (4, None, 20, 6, 1),
        (4, None, 64, 2, 2),
    ],
)
def test_batches_are_whole_groups_of_the_configs_batch(
    experts, sparse_layers, group_size, batch_size, multiple
):
    model = ModelConfig(
        *(32, 16, 16, 8, 2, 2, 2), num_experts=experts, sparse_step=1, group_size=group_size,
        num_encoder_sparse_layers=sparse_layers,
    )  # fmt: skip
    data = DataConfig("unused", {"inputs": 16, "targets": 4})
    config = Config(RunConfig("unused", 1, batch_size), model, data)
    program = export_program(config, DecodingConfig(4), ["tpu"], num_ids=30, unknown_id=2)
    assert program.batch_multiple == multiple
    assert program.exported.platforms == ("tpu",)


def test_nothing_is_left_of_an_export_that_stops(run, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise Stopped

    monkeypatch.setattr("switch_jax.serving.export.stored_pieces", stop)
    with pytest.raises(Stopped):
        main(["export", str(run), str(tmp_path / "target"), "--platforms=cpu"])
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_of_bytes_is_refused(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "run.json").unlink()
    flags = [f"--gin_file={copy}/config.gin", "--gin.VOCABULARY='byte'"]
    assert main(["export", str(copy), str(tmp_path / "target"), *flags]) == 2
    line = "the vocabulary is a ByteVocabulary: only SentencePiece vocabularies can be exported"
    assert line in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "target"], "none is not the folder of a run: it has no config.gin"),
        (["RUN", "RUN"], "run is there already: name a folder that is not, or an empty one"),
        (["RUN", "target", "--checkpoint=3"], "has no checkpoint of step 3: there are 0"),
        (["RUN", "target", "--checkpoint=all"], "--checkpoint = 'all': write latest, best, or"),
        (["RUN", "target", "--platforms=gpu"], "platforms = 'gpu': write one or several of cpu, "),
        (["RUN", "target", "--platforms="], "platforms = '': write one or several of cpu, cuda"),
        (["RUN", "target", "--num_beams=0"], "--num_beams = 0: it must be at least 1"),
        (["RUN", "target", "--batch_size=0"], "--batch_size = 0: it must be at least 1"),
        (["RUN", "target", "--gin.GROUP_SIZE=12"], "GROUP_SIZE = 12 does not fit: it is shorter"),
        (["RUN", "target", "--gin.VOCABULARY=byte"], "another vocabulary (ByteVocabulary) than "),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments, message, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *(a.replace("RUN", str(run)) for a in arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("switch_jax export: ")
    assert list(tmp_path.iterdir()) == []
