import pytest
from jax.sharding import AbstractMesh, AxisType

from switch_jax.config.optimizer import OPTIMIZERS
from switch_jax.data.catalogue.registry import get_tasks
from switch_jax.model.flops import forward_flops
from switch_jax.moe import capacity_of, group_shape
from switch_jax.optim.schedules import learning_rate_schedule
from switch_jax.partitioning.mesh import AXES
from switch_jax.train_step.microbatches import check_batch
from switch_jax.trainer.start.prepare import check_for_slices, check_run
from tests.gin.configs import MODELS, read

# Targets as the metrics get them, BEST_METRIC, and the length of targets.
FINE_TUNING = {
    "finetune_glue": (None, "generated_average", 84),
    "finetune_super_glue": (None, "generated_average", 62),
    "finetune_squad": ([["a man"]], "generated_em", 97),
    "finetune_cnn_dailymail": (["a man goes ."], "generated_rouge2", 512),
    "finetune_xsum": (["a man goes ."], "generated_rouge2", 512),
    "finetune_anli": ([0], "anli_r3/generated_accuracy", 114),
    "finetune_arc": (["a man"], "generated_accuracy", 114),
    "finetune_winogrande": (["a man"], "generated_accuracy", 114),
    "finetune_closed_book": ([["a man"]], "generated_em", 114),
}


def config_of(*files, bindings=()):
    return read(*files, bindings=bindings).config


@pytest.mark.parametrize("model", MODELS)
def test_dropout_is_that_of_section_4_1_and_higher_in_experts_alone(model):
    config = config_of(f"models/{model}", "runs/finetune").model
    assert config.dropout_rate == 0.1
    # A dense model has no experts, and no macro of theirs.
    assert config.expert_dropout_rate == (0.4 if "switch" in model or "moe" in model else None)


def test_fine_tuning_is_that_of_section_4_1():
    bindings = ("TRAINED_PARAMETERS=non_expert",)
    config = config_of("models/switch_base", "runs/finetune", bindings=bindings)
    run, optimizer = config.run, config.optimizer
    assert (run.train_steps, run.eval_period, run.checkpoint_period) == (16_000, 200, 200)
    assert run.batch_size * config.data.lengths[0] == 2**20
    assert (optimizer.lr_schedule, optimizer.learning_rate) == ("constant", 1e-3)
    assert optimizer.trained_parameters == "non_expert"
    assert config.data.pack and config.model.jitter_noise == 0.01


@pytest.mark.parametrize("run", FINE_TUNING)
def test_fine_tuning_on_the_tasks_of_section_4_1(run):
    config = config_of("models/switch_base", f"runs/{run}")
    targets, best_metric, length = FINE_TUNING[run]
    assert config.data.lengths == (512, length)
    assert config.run.batch_size * 512 == 2**20
    assert (config.run.train_steps, config.run.eval_period) == (16_000, 200)
    assert config.run.infer_eval
    assert config.run.best_metric == best_metric
    assert config.run.eval_steps * config.run.batch_size >= 40_430, "QQP, the largest set"
    check_batch(config, {"data": 1, "expert": 128, "model": 1})
    assert check_run(config, readers=1) == []
    # The metric is one of its task.
    tasks = {task.name: task for task in get_tasks(config.data.mixture_or_task_name)}
    name, _, metric = best_metric.rpartition("/")
    if metric == "generated_average":
        assert len(tasks) > 1
        return
    task = tasks[name] if name else next(iter(tasks.values()))
    predictions = [answer[0] if isinstance(answer, list) else answer for answer in targets]
    values = {}
    for metric_fn in task.metric_fns:
        values |= metric_fn(targets, predictions)
    assert metric.removeprefix("generated_") in values


def test_hugging_face_routes_a_row_at_a_time_with_a_fixed_capacity():
    config = config_of("models/switch_base_8", "runs/pretrain", "runs/hugging_face_semantics")
    model = config.model
    for stack in model.stacks:
        length = stack.length(config.data.task_feature_lengths)
        assert group_shape(16, length, stack.group_size) == (16, length)
        for factor in model.train_expert_capacity_factor, model.eval_expert_capacity_factor:
            assert capacity_of(model, length, factor) == 64
    assert not config.data.pack


def test_pretraining_starts_from_scratch_and_trains_all():
    config = config_of("models/t5_base", "runs/pretrain")
    assert config.run.initial_checkpoint_path is None
    assert (config.optimizer.lr_schedule, config.optimizer.trained_parameters) == ("rsqrt", "all")


def test_ul2_has_t5s_rows_and_lengths_that_its_denoisers_fit():
    config = config_of("models/switch_base", "runs/pretrain_ul2")
    assert config.data.mixture_or_task_name == "c4_ul2"
    # That 128 sentinels are enough for these lengths is tested in tests/tasks/test_objectives.py.
    assert config.data.task_feature_lengths == {"inputs": 512, "targets": 512}
    assert config.tokens_per_step == 2048 * (512 + 512)
    check_batch(config, {"data": 1, "expert": 128, "model": 1})
    assert check_run(config, readers=1) == []


def test_a_schedule_ends_with_the_run_that_the_command_line_asks_for():
    bindings = ("LR_SCHEDULE=linear", "WARMUP_STEPS=100", "TRAIN_STEPS=300")
    config = config_of("models/t5_base", "runs/pretrain", bindings=bindings)
    schedule = learning_rate_schedule(config)
    assert [float(schedule(step)) for step in (99, 200, 300)] == [1.0, 0.5, 0.0]


def test_the_two_models_of_the_demo_fit_its_run_and_have_the_same_flops():
    flops = set()
    for model in ("t5_demo", "switch_demo"):
        config = config_of(f"models/{model}", "runs/demo", bindings=("MESH_EXPERT=1",))
        one = AbstractMesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)
        check_for_slices(config, one)
        assert check_run(config, readers=1) == []
        flops.add(forward_flops(config.model, config.data.task_feature_lengths))
    assert len(flops) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("files", "warmup"),
    [(("models/t5_base", "runs/pretrain"), 10_000), (("runs/demo_switch",), 400)],
)
def test_a_recipe_gives_a_run_the_rate_of_its_optimizer(files, warmup, optimizer):
    published = {"adafactor": 0.01, "adamw": 4e-4, "muon": 4e-4}[optimizer]
    config = config_of(*files, f"runs/{optimizer}")
    assert config.optimizer.optimizer == optimizer
    schedule = learning_rate_schedule(config)
    rates = [float(schedule(step)) for step in (0, warmup - 1, config.run.train_steps)]
    assert rates == pytest.approx([published / warmup, published, 0.0], abs=1e-9)
