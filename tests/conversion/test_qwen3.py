"""Qwen3-MoE and Qwen3 of transformers, with random weights, become ours, and ours theirs."""

import dataclasses
import functools
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import switch_jax
from switch_jax import gin_config
from switch_jax.conversion.hugging_face.qwen3 import QWEN3
from switch_jax.data.catalogue.vocabularies import get_vocabulary
from switch_jax.inference import DecodingConfig, make_decode
from switch_jax.model import abstract_parameters, bind
from tests.conversion.folders import (
    WITH_BYTES,
    convert,
    parameters_of,
    with_vocabulary,
    without_special_tokens,
)

torch = pytest.importorskip("torch")
# docs/checkpoint_formats.md says why this version.
transformers = pytest.importorskip("transformers", minversion="5.18")

B, L = 3, 24
CASES = {
    "switch": {  # a Switch Transformer without an encoder
        "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "moe_intermediate_size": 64,
        "num_experts": 4, "num_experts_per_tok": 1, "decoder_sparse_step": 2,
    },
    "top_8": {
        "num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 128, "head_dim": 32,
        "num_attention_heads": 4, "num_key_value_heads": 4, "moe_intermediate_size": 24,
        "num_experts": 16, "num_experts_per_tok": 8, "mlp_only_layers": [0, 3],
    },
    "top_8_normalised": {
        "num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 1, "moe_intermediate_size": 16,
        "num_experts": 16, "num_experts_per_tok": 8, "norm_topk_prob": True,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    },
    "dense": {
        "num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 96, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip
TEXTS = ["Paris", "The capital of France is Paris.", ""]
ROPE = {"rope_type": "default", "rope_theta": 5000.0}


@dataclasses.dataclass
class Case:
    """Their model, our run made from its folder, and the folder made from the run."""

    theirs: object
    run: Path
    exported: Path

    @functools.cached_property
    def config(self):
        """The run's config, as `convert` has written it."""
        return gin_config.read([str(self.run / "config.gin")], ["SCAN_LAYERS=True"]).config.model

    @functools.cached_property
    def parameters(self):
        return parameters_of(self.run, abstract_parameters(self.config))


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    kind = "Qwen3Moe" if "num_experts" in CASES[request.param] else "Qwen3"
    fields = {"vocab_size": 1152, "rope_parameters": ROPE, "initializer_range": 0.2}
    config = getattr(transformers, f"{kind}Config")(**fields, **CASES[request.param])
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        theirs.lm_head.weight *= 0.3  # where it is tied, so that the last token does not come again
        for name, parameter in theirs.named_parameters():
            if "norm" in name:  # which all begin as 1
                parameter.copy_(torch.rand(parameter.shape) + 0.5)
    theirs.save_pretrained(folder / "theirs")
    run = convert(with_vocabulary(folder / "theirs", WITH_BYTES), folder / "run")
    return Case(theirs, run, convert(run, folder / "exported"))


def tokens():
    """[B, L], beginning with 0."""
    drawn = np.random.default_rng(0).integers(3, 1000, (B, L), dtype=np.int32)
    drawn[:, 0] = 0
    return drawn


def test_the_logits_are_theirs(case):
    with torch.no_grad():
        wanted = case.theirs(torch.tensor(tokens())).logits.numpy()
    assert wanted.std() > 0.2
    config = case.config
    assert config.activation_dtype == "float32"

    @jax.jit
    def forward(parameters, tokens):
        return bind(config, parameters)({"decoder": tokens}, {"decoder": tokens >= 0})

    found = forward(case.parameters, tokens())
    np.testing.assert_allclose(found.logits, wanted, atol=1e-5, rtol=0)
    assert not any(of_stack.dropped.any() for of_stack in found.routers.values())


def test_transformers_loads_what_we_write_without_a_warning(case, caplog, monkeypatch):
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "propagate", False)  # it is True where CI is set: twice the records
    logger.addHandler(caplog.handler)
    try:
        loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
            case.exported, output_loading_info=True
        )
    finally:
        logger.removeHandler(caplog.handler)
    assert not any(info.values()), info
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert type(loaded) is type(case.theirs)
    for name, tensor in case.theirs.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    with torch.no_grad():
        logits = [model(torch.tensor(tokens())).logits for model in (case.theirs, loaded)]
    assert torch.equal(*logits)
    ours, theirs = loaded.config.to_dict(), case.theirs.config.to_dict()
    assert {name for name in theirs if ours[name] != theirs[name]} <= {
        *("max_position_embeddings", "initializer_range", "tie_word_embeddings", "_name_or_path"),
        *("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "router_aux_loss_coef"),
        *("decoder_sparse_step", "head_dim"),
    }


def test_the_files_of_the_way_back_are_the_same(case):
    theirs = load_file(case.run.parent / "theirs/model.safetensors")
    ours = load_file(case.exported / "model.safetensors")
    if case.theirs.config.tie_word_embeddings:  # our logits are a tensor of their own
        theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"]
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.parametrize("case", ["switch", "dense"], indirect=True)
def test_greedy_generation_gives_the_same_tokens(case):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(case.exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.exported)
    greedy = functools.partial(loaded.generate, max_new_tokens=6, do_sample=False)
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    generated = greedy(**batch)
    continued = generated[:, batch.input_ids.shape[1] :]
    assert len(set(continued.ravel().tolist())) > 3
    ids, segments = (batch[name].numpy().astype(np.int32) for name in batch)
    segments = segments[:, :-1]  # without the 0 in front
    decode = jax.jit(make_decode(case.config, DecodingConfig(6)))
    prompts = {"decoder": ids[:, 1:] * segments}, {"decoder": segments}
    ours = decode(case.parameters, *prompts, np.arange(B)).tokens[:, 0]
    assert ours.tolist() == continued.tolist()
    without_mask = greedy(tokenizer(TEXTS[1], return_tensors="pt").input_ids)
    assert without_mask[0, -6:].tolist() == continued[1].tolist()


@pytest.mark.parametrize("case", ["switch"], indirect=True)
def test_a_pipeline_gives_the_text_that_infer_gives(case):
    """Whole, streamed, and behind prompts that begin and end with spaces."""
    prompts = ["  In the beginning ", "if (x == 0)\treturn", "é"]
    texts = switch_jax.load(case.run, batch_size=4).generate(prompts, max_new_tokens=24)
    wanted = [without_special_tokens(text) for text in texts]
    assert any("\ufffd" in text for text in wanted), "some bytes are no character"
    assert any(text.startswith(" ") for text in wanted), "some begin with a word"
    pipeline = transformers.pipeline("text-generation", str(case.exported))
    for prompt, text in zip(prompts, wanted, strict=True):
        streamer = transformers.TextIteratorStreamer(
            pipeline.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        options = {"do_sample": False, "max_new_tokens": 24, "streamer": streamer}
        assert pipeline(prompt, **options)[0]["generated_text"] == prompt + text
        assert "".join(streamer) == text


@pytest.mark.parametrize("case", ["switch"], indirect=True)
def test_the_tokenizer_begins_a_text_as_training_does(case):
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.exported)
    ours = get_vocabulary(str(WITH_BYTES))
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids == [0, *ours.encode(text)]
        # Behind another text it would begin with a space, and `decode` does not know.
        assert tokenizer.decode(ids, skip_special_tokens=True) == (text and f" {text}")
    ids = [(tokenizer.bos_token_id, tokenizer.pad_token_id), tokenizer.eos_token_id]
    assert ids == [(0, 0), 1]
    batch = tokenizer(TEXTS, padding=True)
    assert batch.keys() == {"input_ids", "attention_mask"}
    assert [mask[-1] for mask in batch.attention_mask] == [1, 1, 1], "padding is on the left"
    written = json.loads((case.exported / "config.json").read_text())
    assert [written[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [0, 1, 1]


@pytest.mark.parametrize("case", ["switch"], indirect=True)
def test_transformers_trains_the_row_of_the_start_token(case):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(case.exported)
    batch = torch.tensor(tokens()).long()
    loaded(batch, labels=batch).loss.backward()
    assert loaded.get_input_embeddings().weight.grad[0].any()


@pytest.mark.parametrize("kind", ["Qwen3", "Qwen3Moe"])
def test_heads_without_head_dim_are_as_large_as_theirs(kind):
    config = {**CASES["switch"], "vocab_size": 1152}
    del config["head_dim"]
    with torch.device("meta"):
        of_class = getattr(transformers, f"{kind}Config")(**config)
        theirs = getattr(transformers, f"{kind}ForCausalLM")(of_class)
    read = QWEN3.architecture({**config, "model_type": of_class.model_type})
    assert read["head_dim"] == theirs.model.layers[0].self_attn.q_norm.weight.shape[0]
