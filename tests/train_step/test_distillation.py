"""A step with a teacher: the same step written out, in microbatches, and on eight devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import DistillationConfig, LossConfig, MeshConfig
from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.model.flops import training_flops
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import abstract_model, fresh_state
from switch_jax.train_step.step import make_train_step
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import GRADIENTS, random_batch, tiny_config, tiny_model

# A layer in each stack, with experts. The teacher has few slots in evaluation, noise in training,
# and groups of 2 rows; the student groups of 1.
ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}
TEACHER = tiny_model(
    **ONE_LAYER,
    num_experts=8,
    eval_expert_capacity_factor=0.5,
    expert_capacity_multiple=1,
    dropout_rate=0.3,
    decoder_group_size=16,
)
STUDENT = tiny_model(**ONE_LAYER, group_size=16, decoder_group_size=8, jitter_noise=0.0)
F, T = 0.25, 2.0


def _config(teacher=TEACHER, fraction_soft=F, mesh=(1, 1, 1), num_microbatches=1):
    return tiny_config(
        STUDENT,
        batch_size=16,
        num_microbatches=num_microbatches,
        mesh=MeshConfig(*mesh),
        loss=LossConfig(z_loss=1e-2, aux_loss_factor=0.1),
        distillation=DistillationConfig("teacher", fraction_soft=fraction_soft, temperature=T),
        teacher=tiny_config(teacher),
    )


@functools.cache
def _parameters(model, seed):
    return jax.device_get(jax.jit(init_parameters, static_argnums=0)(model, jax.random.key(seed)))


def _step(config):
    """One step: gradients and metrics, on the host."""
    mesh = make_mesh(config.mesh)

    def placed(model, seed):
        shapes = abstract_model(model, config.mesh, mesh)
        shardings = jax.tree.map(lambda s: s.sharding, shapes)
        return jax.device_put(_parameters(model, seed), shardings)

    state = fresh_state(config, GRADIENTS, placed(config.model, 0))
    teacher = placed(config.teacher.model, 1)
    batch = jax.device_put(random_batch(16), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        new, metrics = jax.jit(make_train_step(config, GRADIENTS))(state, batch, teacher=teacher)
    return jax.device_get((new.optimizer, metrics))


@pytest.fixture(scope="module")
def one_device():
    return _step(_config())


def _output(model, parameters, batch, key=None):
    return bind(model, parameters)(*model_inputs(model, batch), key=key)


def _log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_a_step_is_the_one_written_out(one_device):
    """The loss and its gradient by the logits in NumPy; `jax.vjp` of the model does the rest."""
    gradients, metrics = one_device
    batch = random_batch(16)
    teacher = jax.jit(lambda p: _output(TEACHER, p, batch))(_parameters(TEACHER, 1))
    assert float(teacher.routers["encoder"].dropped.max()) > 0, (
        "the teacher's groups should overflow"
    )

    @jax.jit
    def forward_and_back(parameters, cotangent):
        def of_loss(parameters):
            output = _output(STUDENT, parameters, batch, jax.random.key(0))
            return output.logits, sum(
                router.load_balance_loss.sum() for router in output.routers.values()
            )

        outputs, back = jax.vjp(of_loss, parameters)
        return outputs, back((cotangent, jnp.float32(0.1)))[0]

    student = _parameters(STUDENT, 0)
    logits, balance = forward_and_back(student, jnp.zeros((16, 8, 64)))[0]
    s, t = np.asarray(logits, np.float64), np.asarray(teacher.logits, np.float64)
    targets, real = batch["decoder_target_tokens"], batch["decoder_segment_ids"] > 0
    one_hot = np.eye(64)[targets]
    log_z = np.log(np.exp(s).sum(-1))
    p, log_q = np.exp(_log_softmax(t / T)), _log_softmax(s / T)
    hard = -(one_hot * _log_softmax(s)).sum(-1)[real].mean()
    soft = -(p * log_q).sum(-1)[real].mean()
    loss = (1 - F) * hard + T**2 * F * soft + 1e-2 * (log_z**2)[real].mean() + 0.1 * float(balance)
    np.testing.assert_allclose(metrics.cross_entropy, hard, rtol=1e-6)
    np.testing.assert_allclose(metrics.soft_cross_entropy, soft, rtol=1e-6)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-6)

    q = np.exp(_log_softmax(s))
    by_logits = (1 - F) * (q - one_hot) + T * F * (np.exp(log_q) - p)
    by_logits += 1e-2 * 2 * log_z[..., None] * q
    by_logits *= real[..., None] / real.sum()
    expected = forward_and_back(student, by_logits.astype(np.float32))[1]
    _assert_same(gradients, expected)


def _assert_same(gradients, expected):
    for (path, b), a in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(gradients), strict=True
    ):
        largest = np.abs(b).max()
        assert largest > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest, err_msg=str(path))


def test_microbatches_on_eight_devices_give_the_same(one_device):
    """Groups of the teacher stay whole. The student's are single rows, which may lie anywhere."""
    gradients, metrics = _step(_config(mesh=(2, 2, 2, True), num_microbatches=2))
    _assert_same(gradients, one_device[0])
    for a, b in zip(jax.tree.leaves(metrics), jax.tree.leaves(one_device[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_flops_of_a_step_are_those_of_training_and_of_the_teachers_forward_pass():
    """Two experts of a token take those of the teacher's slots in evaluation."""
    lengths = {"inputs": 16, "targets": 8}
    student, own = (training_flops(model, lengths) for model in (STUDENT, TEACHER))
    assert step_flops(_config()) == 16 * (student + own / 3)
    two = {"num_selected_experts": 2, "train_expert_capacity_factor": 1.25}
    teacher = dataclasses.replace(TEACHER, **two, eval_expert_capacity_factor=2.0)
    own = training_flops(teacher, lengths, slots={"encoder": 2.0, "decoder": 2.0})
    assert step_flops(_config(teacher)) == 16 * (student + own / 3)
    unused = _config(fraction_soft=0.0)
    assert unused.teacher_model is None and step_flops(unused) == 16 * student


def test_groups_of_the_teacher_that_do_not_fit_are_named_by_its_macro():
    large = dataclasses.replace(TEACHER, group_size=256, decoder_group_size=None)
    config = _config(large, num_microbatches=2)
    message = "TEACHER_GROUP_SIZE = 256 does not fit: groups take 16 whole rows of .*, and 16 x 2 "
    with pytest.raises(UserError, match=message):
        check_batch(config, {"data": 1, "expert": 1, "model": 1})
