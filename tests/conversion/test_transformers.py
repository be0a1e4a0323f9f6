"""Models of Hugging Face transformers, with random weights, become ours, and ours theirs."""

import dataclasses
import functools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto

import switch_jax
from switch_jax import gin_config
from switch_jax.config import DataConfig
from switch_jax.conversion.hugging_face.tokenizer import tokenizer_files
from switch_jax.data.catalogue.vocabularies import get_vocabulary
from switch_jax.inference import DecodingConfig, make_decode
from switch_jax.model import abstract_parameters, bind
from tests.conversion.folders import (
    VOCABULARY,
    convert,
    parameters_of,
    with_vocabulary,
    without_special_tokens,
)
from tests.trainer.helpers import STACKS, by_stack

torch = pytest.importorskip("torch")
# docs/checkpoint_formats.md says why this version.
transformers = pytest.importorskip("transformers", minversion="5.18")

B, M, L = 3, 12, 8  # rows, tokens of inputs, tokens of targets
SIZES = {
    "vocab_size": 1152, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 4,
    "num_decoder_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
SWITCH = {"num_experts": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 1}
T5_1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CASES = {
    "switch": ("SwitchTransformers", {**SWITCH, "expert_capacity": M}),
    "switch_untied_overflow": (
        "SwitchTransformers",
        {
            **SWITCH, "expert_capacity": 2, "tie_word_embeddings": False,
            "num_sparse_decoder_layers": 0, "decoder_sparse_step": 0,  # 0 layers alone makes one
        },
    ),
    "switch_every_layer": (
        "SwitchTransformers",
        {
            "num_experts": 2, "expert_capacity": 3, "num_sparse_encoder_layers": 4,
            "num_sparse_decoder_layers": 2,
        },
    ),
    "t5": ("T5", {}),
    "t5_1_1": ("T5", T5_1_1),
    "mt5": ("MT5", T5_1_1),
}  # fmt: skip


@dataclasses.dataclass
class Case:
    """Their model, our run made from its folder, and the folder made from the run."""

    theirs: object
    run: object
    exported: object

    @functools.cached_property
    def config(self):
        """The run's config, with their semantics in the routing of a Switch model."""
        files, bindings = [str(self.run / "config.gin")], ["SCAN_LAYERS=True"]
        capacity = getattr(self.theirs.config, "expert_capacity", None)
        if capacity is None:
            bindings.append("ACTIVATION_DTYPE=float32")
        else:
            files.append("runs/hugging_face_semantics.gin")
            bindings += [
                f"TASK_FEATURE_LENGTHS={{'inputs': {M}, 'targets': {L}}}",
                f"GROUP_SIZE={M}",
                f"DECODER_GROUP_SIZE={L}",
                f"MIN_EXPERT_CAPACITY={capacity}",
            ]
        return gin_config.read(files, bindings).config.model

    @functools.cached_property
    def parameters(self):
        return parameters_of(self.run, abstract_parameters(self.config))


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    kind, fields = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **fields)
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        theirs.shared.weight *= 0.1  # so that the next token is not the last one again
    if "tie_word_embeddings" in fields:
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn(1152, 32) / 3)
        if kind == "SwitchTransformers":  # it unties these tables too
            for stack in theirs.encoder, theirs.decoder:
                stack.embed_tokens.weight = torch.nn.Parameter(theirs.shared.weight.clone())
    theirs.save_pretrained(folder / "theirs")
    written = json.loads((folder / "theirs/config.json").read_text())
    if kind != "SwitchTransformers":  # as the released folders have it
        written["tie_word_embeddings"] = fields.get("tie_word_embeddings", True)
        (folder / "theirs/config.json").write_text(json.dumps(written))
    with_vocabulary(folder / "theirs")
    run = convert(folder / "theirs", folder / "run")
    model_type = ["--model_type=mt5"] if kind == "MT5" else []
    exported = convert(run, folder / "exported", *model_type)
    return Case(theirs, run, exported)


def tokens():
    """Inputs and targets of unequal lengths, padded on the right with 0."""
    rng = np.random.default_rng(0)
    real = [np.arange(n) < rng.integers(n // 2, n + 1, (B, 1)) for n in (M, L)]
    return [rng.integers(3, 1000, r.shape) * r for r in real]


# The others are made of the same layers and logits.
@pytest.mark.parametrize(
    "case", ["switch_untied_overflow", "switch_every_layer", "t5_1_1"], indirect=True
)
def test_activations_logits_and_loss_are_theirs(case):
    inputs, targets = tokens()
    labels = torch.tensor(np.where(targets, targets, -100))
    is_sparse = case.config.num_experts > 0
    with torch.no_grad():
        wanted = case.theirs(
            input_ids=torch.tensor(inputs),
            attention_mask=torch.tensor((inputs != 0).astype(int)),
            labels=labels,
            **({"output_router_logits": True} if is_sparse else {}),
        )
    segments = [(t != 0).astype(np.int32) for t in (inputs, targets)]
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    arguments = by_stack(inputs, shifted), by_stack(*segments)
    config = case.config

    def forward(parameters):
        model = bind(config, parameters)
        memory = model.encode(*arguments)["encoder"].x
        return model(*arguments, with_choices=True), memory

    output, memory = jax.jit(forward)(case.parameters)
    _assert_close(memory, wanted.encoder_last_hidden_state, segments[0])
    _assert_close(output.logits, wanted.logits, segments[1])
    log_probs = jax.nn.log_softmax(output.logits)
    of_targets = jnp.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    loss = -(of_targets * segments[1]).sum() / segments[1].sum()
    cross_entropy = torch.nn.functional.cross_entropy(wanted.logits.mT, labels)
    np.testing.assert_allclose(loss, cross_entropy, atol=1e-5)
    if is_sparse:
        for stack, (experts, gates) in output.choices.items():  # [N, B, 1, L] each
            found = getattr(wanted, f"{stack}_router_logits")
            probs = [x.softmax(-1) for x in found if torch.is_tensor(x) and x.ndim == 3]
            for ours, gate, theirs in zip(experts[:, :, 0], gates[:, :, 0], probs, strict=True):
                real = segments[stack == "decoder"] != 0
                assert (ours[real] == theirs.argmax(-1).numpy()[real]).all()
                _assert_close(gate, theirs.max(-1).values, real)
        dropped = float(output.routers["encoder"].dropped.max())
        assert (dropped > 0) == (case.theirs.config.expert_capacity < M)


def _assert_close(ours, theirs, segments):
    real = segments != 0
    np.testing.assert_allclose(np.asarray(ours)[real], theirs.numpy()[real], atol=1e-4)


@pytest.mark.parametrize("case", ["switch", "t5_1_1"], indirect=True)
def test_greedy_decoding_gives_the_same_tokens(case):
    inputs, _ = tokens()
    segments = (inputs != 0).astype(np.int32)
    theirs = case.theirs.generate(
        torch.tensor(inputs),
        attention_mask=torch.tensor(segments).long(),
        max_new_tokens=L,
        do_sample=False,
    )
    decode = jax.jit(make_decode(case.config, DecodingConfig(L)))
    arguments = {"encoder": inputs}, {"encoder": segments}, np.arange(B)
    ours = decode(case.parameters, *arguments).tokens[:, 0]
    assert len(set(np.asarray(ours).ravel())) > 3, "the tokens should differ"
    width = theirs.shape[1] - 1  # theirs stops where all rows have ended
    assert np.asarray(ours)[:, :width].tolist() == theirs[:, 1:].tolist()


@pytest.mark.parametrize("case", ["t5_1_1"], indirect=True)
def test_the_text_that_infer_gives_whole_and_streamed(case):
    prompts = ["  In the beginning ", "Who?"]
    texts = switch_jax.load(case.run, batch_size=2).generate(prompts, max_new_tokens=24)
    wanted = [without_special_tokens(text).lstrip(" ") for text in texts]
    loaded = type(case.theirs).from_pretrained(case.exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.exported)
    for prompt, text in zip(prompts, wanted, strict=True):
        streamer = transformers.TextIteratorStreamer(tokenizer, skip_special_tokens=True)
        inputs = tokenizer(prompt, return_tensors="pt")
        ids = loaded.generate(**inputs, do_sample=False, max_new_tokens=24, streamer=streamer)
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == text
        assert "".join(streamer) == text


def test_transformers_loads_what_we_write_without_a_warning(case, caplog, monkeypatch):
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "propagate", False)  # it is True where CI is set: twice the records
    logger.addHandler(caplog.handler)
    try:
        loaded, info = type(case.theirs).from_pretrained(case.exported, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert not any(info.values()), info
    untied_t5 = not case.config.tie_embeddings and not case.config.num_experts
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(messages) == untied_t5, messages
    assert all("tie" in message for message in messages)
    for name, tensor in case.theirs.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.exported)
    assert tokenizer("Paris").input_ids == [*get_vocabulary(str(VOCABULARY)).encode("Paris"), 1]
    assert loaded.generation_config.decoder_start_token_id == 0
    assert loaded.generation_config.eos_token_id == 1
    scaled = getattr(loaded.config, "scale_decoder_outputs", None)
    assert scaled == getattr(case.theirs.config, "scale_decoder_outputs", None)


def with_own_sentinels(model):
    """The vocabulary with sentinels in its file, as mT5's."""
    proto = ModelProto.FromString(model)
    for number in reversed(range(100)):
        piece = f"▁<extra_id_{number}>"
        proto.pieces.add(piece=piece, type=ModelProto.SentencePiece.USER_DEFINED)
    return proto.SerializeToString()


@pytest.mark.parametrize("kind", ["english", "bytes", "own_sentinels"])
def test_the_tokenizer_gives_our_ids(tmp_path, kind):
    model = VOCABULARY.read_bytes()
    if kind == "bytes":  # of 100 languages; what is no piece becomes bytes
        model = (VOCABULARY.parent / "udhr_8000.model").read_bytes()
    elif kind == "own_sentinels":
        model = with_own_sentinels(model)
    (tmp_path / "our.model").write_bytes(model)
    task, file = "english_span_corruption", str(tmp_path / "our.model")
    data = DataConfig(task, {"inputs": 8, "targets": 8}, vocabulary=file)
    for name, content in tokenizer_files(data, STACKS[0]).items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = get_vocabulary(file)
    assert len(theirs) == ours.vocab_size
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    for text in (
        "The capital of France is Paris.", "a <extra_id_0> b <extra_id_99>", " two  spaces ",
        "Größe ﬁ ① 日本語 ☃", "Все люди рождаются свободными", "",
    ):  # fmt: skip
        ids = theirs(text).input_ids
        assert ids == [*ours.encode(text), ours.eos_id], text
        if "<" not in text and ours.unk_id not in ids:
            assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids[:-1])
