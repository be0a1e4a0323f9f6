"""`switch_jax convert` between hand-written folders of others and runs of ours."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from switch_jax.cli import main
from switch_jax.conversion.hugging_face import export
from switch_jax.run_folder import RunFolder, read_run_config
from tests.cli.mistakes import refused
from tests.conversion.folders import (
    ALIASES,
    TABLE,
    VOCABULARY,
    WIDE,
    WIDE_TENSORS,
    assert_equal,
    convert,
    parameters_of,
    with_vocabulary,
    write_folder,
)
from tests.conversion.t5x.checkpoints import SWITCH, write_checkpoint
from tests.model.test_huggingface_oracle import ours

PARAMETERS = ours(WIDE_TENSORS)
BFLOAT16 = "--gin.ACTIVATION_DTYPE=bfloat16"


@pytest.mark.parametrize("pair", [("theirs", "run"), ("t5x", "t5x_run")], ids=lambda p: p[0])
def test_a_run_has_their_numbers(request, pair):
    source, run = map(request.getfixturevalue, pair)
    assert_equal(parameters_of(run, PARAMETERS), PARAMETERS)
    facts = json.loads((run / "run.json").read_text())
    assert facts["name"] == "run" and facts["initial_checkpoint"] == str(source)
    tied = {n: t for n, t in WIDE_TENSORS.items() if n not in ALIASES}
    assert facts["parameters"] == sum(t.size for t in tied.values())
    assert sorted(path.name for path in run.parent.iterdir()) == sorted(["run", source.name])


def test_the_vocabulary_is_the_folder_s_or_t5_s(run, t5x, tmp_path, capsys):
    assert (run / "spiece.model").read_bytes() == VOCABULARY.read_bytes()
    brought = shutil.copytree(t5x, tmp_path / "brought")
    (brought / "spiece.model").write_bytes(VOCABULARY.read_bytes())
    converted = convert(brought, tmp_path / "a")
    assert (converted / "spiece.model").read_bytes() == VOCABULARY.read_bytes()
    assert "has no spiece.model" not in capsys.readouterr().out
    without = write_checkpoint(tmp_path / "without", SWITCH)
    converted = convert(without, tmp_path / "b")
    assert "has no spiece.model, so VOCABULARY is 't5': check that" in capsys.readouterr().out
    assert "VOCABULARY = 't5'" in (converted / "config.gin").read_text()


def test_the_way_back_gives_the_same_bits(run, tmp_path):
    exported = convert(run, tmp_path / "exported")
    tensors = load_file(exported / "model.safetensors")
    assert tensors.keys() == WIDE_TENSORS.keys() - set(ALIASES)
    for name, tensor in tensors.items():
        assert tensor.tobytes() == WIDE_TENSORS[name].tobytes(), name
    with safe_open(exported / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    written = json.loads((exported / "config.json").read_text())
    same = WIDE.keys() & written.keys()
    differing = {name for name in same if written[name] != WIDE[name]}
    # These follow from what our run is trained and evaluated with.
    assert differing <= {
        *("expert_capacity", "router_jitter_noise", "router_z_loss_coef", "router_aux_loss_coef"),
    }
    # 512 tokens x factor 2.0 / 4 experts
    assert written["expert_capacity"] == 256
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation == {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    tokenizer = json.loads((exported / "tokenizer_config.json").read_text())
    assert (tokenizer["eos_token"], tokenizer["extra_ids"]) == ("</s>", 100)
    assert (exported / "spiece.model").read_bytes() == VOCABULARY.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_comes_back_with_its_dtypes(run, tmp_path, capsys, dtype):
    router = "bfloat16" if dtype == "float32" else "float32"
    dtypes = [f"--gin.ACTIVATION_DTYPE={dtype}", f"--gin.ROUTER_DTYPE={router}"]
    exported = convert(run, tmp_path / "exported", *dtypes)
    written = json.loads((exported / "config.json").read_text())
    assert written["dtype"] == "float32", "which is that of the tensors"
    capsys.readouterr()
    again = convert(exported, tmp_path / "again")
    model = read_run_config(RunFolder.at(again)).model
    assert (model.activation_dtype, model.router_dtype) == (dtype, router)
    assert f"ACTIVATION_DTYPE is '{dtype}', as in {exported}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "bindings", "told"),
    [
        ({"dtype": "float32"}, [], "'float32', as in FOLDER"),
        ({"torch_dtype": "bfloat16"}, [], "'bfloat16', as in FOLDER"),
        ({"dtype": "float32"}, [BFLOAT16], "'bfloat16'; in FOLDER it is 'float32'"),
        ({"dtype": "float16"}, [], "'bfloat16'; FOLDER does not say in which dtype it computes"),
        ({}, [BFLOAT16], "'bfloat16'; FOLDER does not say in which dtype it computes"),
    ],
)
def test_the_dtype_of_a_new_run_is_said(tmp_path, capsys, names, bindings, told):
    folder = with_vocabulary(write_folder(tmp_path / "theirs", {**WIDE, **names}, WIDE_TENSORS))
    convert(folder, tmp_path / "run", *bindings)
    line = f"ACTIVATION_DTYPE is {told.replace('FOLDER', str(folder))}\n"
    assert line in capsys.readouterr().out


def test_large_models_are_written_in_shards(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_SHARD_BYTES", 100_000)
    exported = convert(run, tmp_path / "exported")
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3 and files[1] == f"model-00002-of-{len(files):05}.safetensors"
    sizes = [sum(t.nbytes for t in load_file(exported / file).values()) for file in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    # The table alone is larger.
    assert sorted(sizes)[-1] == TABLE.nbytes and max(sorted(sizes)[:-1]) <= 100_000
    for name, file in index["weight_map"].items():
        with safe_open(exported / file, "numpy") as opened:
            np.testing.assert_array_equal(opened.get_tensor(name), WIDE_TENSORS[name])
    assert_equal(parameters_of(convert(exported, tmp_path / "again"), PARAMETERS), PARAMETERS)


def test_inspect_describes_all(theirs, t5x, run, capsys):
    lines = []
    for path in (run, theirs, t5x):
        assert main(["convert", "--inspect", str(path)]) == 0
        lines.append(capsys.readouterr().out.splitlines())
    fields, *others = ({line.split()[0]: line.split(maxsplit=1)[1] for line in x} for x in lines)
    assert fields["format"] == "switch_jax" and fields["step"] == "0"
    assert fields["dtype"] == "float32" and fields["vocabulary"].endswith("run/spiece.model")
    table, experts = 1152 * 32, 2 * 4 * 2 * 32 * 64
    assert fields["embedding"] == f"{table:,}"
    assert fields["name"] == "shape" and fields["token_embedding/embedding"] == "(1152, 32)"
    assert fields["encoder/experts"] == fields["decoder/experts"] == f"{experts:,}"
    assert fields["num_experts"] == "4" and "group_size" in fields
    of_all = [x[[line.split()[0] for line in x].index("parameters") :] for x in lines]
    assert of_all[0] == of_all[1] == of_all[2], "the parameters are the same"
    hugging_face = "Hugging Face SwitchTransformersForConditionalGeneration, model.safetensors"
    t5x_format = "T5X checkpoint, version 3, with the optimiser's state, which is left out"
    assert [(x["format"], x["step"], x["vocabulary"]) for x in others] == [
        (hugging_face, "unknown", "spiece.model, 1,000 pieces"),
        (t5x_format, "7", "no spiece.model in the folder"),
    ]


class Stopped(BaseException):
    """As Ctrl-C raises it."""


@pytest.mark.parametrize("direction", ["to_run", "to_hugging_face"])
def test_nothing_is_left_of_a_conversion_that_stops(theirs, run, tmp_path, monkeypatch, direction):
    seen = []

    def update(bar, size):
        seen.append(size)
        if len(seen) == 20:
            raise Stopped

    monkeypatch.setattr("tqdm.tqdm.update", update)
    source = theirs if direction == "to_run" else run
    with pytest.raises(Stopped):
        main(["convert", str(source), str(tmp_path / "target")])
    assert len(seen) == 20 and list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(theirs, tmp_path, monkeypatch, capsys):
    def full(*arguments, **options):
        raise ValueError("Error writing: No space left on device")

    monkeypatch.setattr("switch_jax.conversion.to_run.open_parameters", full)
    line = refused(capsys, "convert", theirs, tmp_path / "target")
    assert "target cannot be written: Error writing: No space left on device" in line
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line_and_write_nothing(theirs, run, tmp_path, capsys):
    target = tmp_path / "target"
    small = with_vocabulary(write_folder(tmp_path / "small"))
    damaged = write_folder(tmp_path / "damaged")
    (damaged / "spiece.model").write_text("no model")
    for arguments, message in (
        ((theirs, target, "--inspect"), "write --inspect SOURCE to describe it, or SOURCE TARG"),
        ((theirs, run), "run is there already: name a folder that is not, or an empty one"),
        ((small, target), "spiece.model has 1100 ids, and the model's embedding 128 rows: it is"),
        ((damaged, target), "no SentencePiece model is found at .*damaged/spiece.model"),
        ((run, target, "--checkpoint=all"), "--checkpoint = 'all': write latest, best, or the nu"),
        ((theirs, target, "--gin.NUM_EXPERTS=8"), "describe: NUM_EXPERTS 4 -> 8; set th"),
    ):
        line = refused(capsys, "convert", *arguments)
        assert re.search(message, line), line
    assert not target.exists()


def test_a_damaged_checkpoint_is_named(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    files = sorted(copy.rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 1
    files[-1].write_bytes(content)
    line = refused(capsys, "convert", copy, tmp_path / "target")
    assert "copy/checkpoints/0 cannot be read" in line
    assert not (tmp_path / "target").exists()


def test_a_run_that_holds_parameters_alone_is_not_continued(run, tmp_path, capsys):
    gin = tmp_path / "tiny.gin"
    gin.write_text(
        f"include '{run}/config.gin'\nTASK_FEATURE_LENGTHS = {{'inputs': 32, 'targets': 16}}\n"
        "MESH_DATA = 1\nBATCH_SIZE = 8\n"
    )
    line = refused(capsys, "train", f"--gin_file={gin}", f"--gin.MODEL_DIR={run}")
    assert "holds parameters alone, as `switch_jax convert` writes them: to start from" in line
