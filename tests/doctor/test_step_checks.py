"""What eight devices do together, as it is and where it goes wrong."""

import errno
import os
import types

import jax
import numpy as np
import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import MeshConfig
from switch_jax.doctor import step_checks
from switch_jax.doctor.checks import Failed
from switch_jax.doctor.step_checks import REFERENCE, reference_numbers, repeated_batch, small_config
from switch_jax.model import init_parameters
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.storage import list_names
from switch_jax.train_step import step as train_step
from switch_jax.train_step.microbatches import accumulate
from switch_jax.train_step.state import fresh_state
from switch_jax.train_step.step import make_train_step
from switch_jax.utils.errors import UserError
from tests.doctor import plain_transformer
from tests.trainer.helpers import GRADIENTS


@pytest.fixture
def mesh():
    """Along all axes."""
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        yield mesh


def test_a_layer_is_that_of_one_device_and_a_wrong_exchange_fails(mesh, monkeypatch):
    assert "from one device, 1e-05 is allowed" in step_checks.switch_layer(mesh)
    exchange = jax.lax.all_to_all  # which a single device does not need
    monkeypatch.setattr(jax.lax, "all_to_all", lambda *a, **k: exchange(*a, **k)[..., ::-1])
    with pytest.raises(Failed, match=r"differs by \d\.\de(-01|\+0\d) from one device"):
        step_checks.switch_layer(mesh)


def test_a_layer_on_a_model_axis_that_is_no_power_of_two():
    mesh = make_mesh(MeshConfig(1, 1, 3), jax.devices()[:3])
    with jax.set_mesh(mesh):
        assert "from one device" in step_checks.switch_layer(mesh)


def test_the_shipped_numbers_are_those_of_a_transformer_in_numpy():
    """A norm is the slope of NumPy's loss along the gradient; along all else it would be less."""
    config = small_config(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    batch = repeated_batch(config)
    parameters = jax.jit(lambda: init_parameters(config.model, jax.random.key(0)))()
    state = fresh_state(config, GRADIENTS, parameters)
    new, metrics = jax.jit(make_train_step(config, GRADIENTS))(state, batch)
    assert reference_numbers(metrics) == pytest.approx(REFERENCE, rel=1e-6)

    start, gradients = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), x) for x in (parameters, new.optimizer)
    )

    def loss(along, moved):
        return plain_transformer.loss(jax.tree.map(lambda x, u: x + moved * u, start, along), batch)

    zeros = jax.tree.map(np.zeros_like, gradients)
    assert loss(zeros, 0.0) == pytest.approx(REFERENCE["loss"], rel=1e-6)
    embedding = zeros | {"token_embedding": gradients["token_embedding"]}
    for name, of in (("gradient_norm", gradients), ("embedding_gradient_norm", embedding)):
        norm = REFERENCE[name]
        along = jax.tree.map(lambda g, norm=norm: g / norm, of)
        slope = (loss(along, 1e-5) - loss(along, -1e-5)) / 2e-5
        assert slope == pytest.approx(norm, rel=1e-5)


@pytest.mark.slow
def test_a_step_passes_also_where_the_experts_do_not_divide_over_the_mesh():
    mesh = make_mesh(MeshConfig(1, 6, 1), jax.devices()[:6])
    assert step_checks.step(mesh).endswith("1e-04 is allowed; the same bits twice")


def half_of_the_embedding(gradient, parts, key):
    gradients, sums = accumulate(gradient, parts, key)
    halved = jax.tree.map(lambda g: g / 2, gradients["token_embedding"])
    return gradients | {"token_embedding": halved}, sums


def test_half_of_the_embedding_s_gradient_over_microbatches_fails(mesh, monkeypatch):
    """The norm of all gradients shows so little of it that no TPU would fail by that."""
    assert step_checks.step(mesh, 2).endswith("1e-04 is allowed; the same bits twice")
    monkeypatch.setattr(train_step, "accumulate", half_of_the_embedding)
    with pytest.raises(Failed, match=r"6\.06\d\d, of the embedding's 0\.1128: .* by 5\.0e-01 from"):
        step_checks.step(mesh, 2)


@pytest.mark.parametrize(
    "platform, loss, bits, problem",
    [
        (
            "cpu",
            1.002,
            b"a",
            "loss 8.0233, .* 6.0673, .* 0.2256: this differs by 2.0e-03 .* 1e-04 is allowed",
        ),
        (
            "tpu",
            1.02,
            b"a",
            "differs by 2.0e-02 from the shipped 8.0073, 6.0673 and 0.2256, 1e-02 is",
        ),
        ("tpu", 1.002, b"b", "done twice, it gives other bits in 1 of 2 arrays"),
    ],
)
def test_another_loss_and_other_bits_fail(platform, loss, bits, problem, monkeypatch):
    found = REFERENCE | {"loss": loss * REFERENCE["loss"]}
    steps = [(found, [b"a", b"a"]), (found, [b"a", bits])]
    monkeypatch.setattr(step_checks, "first_steps", lambda mesh, microbatches: steps)
    devices = np.array([types.SimpleNamespace(platform=platform)], object)
    with pytest.raises(Failed, match=problem):
        step_checks.step(types.SimpleNamespace(devices=devices))


def test_exchanges_have_numbers_and_slow_ones_fail(mesh, monkeypatch):
    for found in step_checks.exchanges(mesh, "expert").split("; "):
        assert found.endswith(" GB/s a device") and float(found.split()[1]) > 0

    def planned(op, size, group, mesh, hardware):
        asked.append((op, group, hardware))
        return size / 90e9

    asked = []
    monkeypatch.setattr(step_checks, "slice_from_devices", lambda devices: "v5p")
    monkeypatch.setattr(step_checks, "seconds_of", planned)
    monkeypatch.setattr(step_checks.statistics, "median", lambda times: 2**23 / 80e9)
    said = "all-to-all 80 GB/s a device, 89% of what plan assumes; all-reduce 80 GB/s a device, 89%"
    assert said in step_checks.exchanges(mesh, "data")
    # Device 0 and 1 of data, of 2 x 2 x 2
    assert asked == [("all-to-all", [0, 4], "v5p"), ("all-reduce", [0, 4], "v5p")]
    monkeypatch.setattr(step_checks.statistics, "median", lambda times: 2**23 / 30e9)
    with pytest.raises(Failed, match="30 GB/s a device, 33% of what plan assumes"):
        step_checks.exchanges(mesh, "data")


def test_a_checkpoint_comes_back_and_nothing_is_left(mesh, storage):
    said = step_checks.checkpoint(mesh, storage / "run")
    assert said == f"8 MiB beside {storage / 'run'} come back bit for bit"
    assert list_names(storage) == []


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def with_another_bit(self, shapes, restore=Checkpoints.restore):
    restored = restore(self, shapes)
    return restored._replace(state={"bits": restored.state["bits"].at[1, 2, 3].add(1)})


@pytest.mark.parametrize(
    "of, name, broken, problem",
    [
        (ocp.training.Checkpointer, "save_async", full, "cannot be .*No space left on device"),
        (Checkpoints, "restore", with_another_bit, "what was read is not what was written"),
    ],
)
def test_no_room_and_other_bits_of_a_checkpoint_fail(
    of, name, broken, problem, mesh, tmp_path, monkeypatch
):
    monkeypatch.setattr(of, name, broken)
    with pytest.raises((Failed, UserError), match=problem):
        step_checks.checkpoint(mesh, epath.Path(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
