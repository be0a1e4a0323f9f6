"""Warm start: a new run begins with the parameters of a checkpoint, of ours or another format.

With UPCYCLE the checkpoint is of the dense model that the run's experts are made from. A run that
is distilled may take a part of its parameters from its teacher.
"""

import dataclasses
import functools
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from switch_jax.checkpointing import find_checkpoint
from switch_jax.checkpointing.integrity import check_model, shapes_of
from switch_jax.checkpointing.read_only import check_part, load_parts, part_shapes
from switch_jax.config import Config
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.source import Source
from switch_jax.conversion.teacher_weights import TeacherWeights
from switch_jax.conversion.upcycling import dense_twin, upcycled, upcycled_moments
from switch_jax.data.checks import check_vocabularies_of_run
from switch_jax.errors import UserError
from switch_jax.model import abstract_parameters, init_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.processes import from_first, run_on_all
from switch_jax.storage import resolved, storage_path
from switch_jax.train_step.lowering import compiler_options
from switch_jax.train_step.state import TrainState, abstract_state, fresh_state, init_state
from switch_jax.trainer import restored_parameters
from switch_jax.trainer.teacher import Teacher


def find_warm_start(config: Config) -> epath.Path | Source | None:
    """The checkpoint whose parameters a run starts from, checked before anything is written.

    Call it once a start: the other run may save a newer checkpoint in the meantime.

    Args:
      config: of a run with or without `initial_checkpoint_path`.

    Returns:
      A checkpoint's folder, or an opened one of another format. None where the run starts from
      scratch, or goes on from a checkpoint of its own.

    Raises:
      UserError: no checkpoint is there, it is damaged or of another model, or it is the run's own.
    """
    run, start, given = config.run, config.run.initial_checkpoint_path, None
    own = run_on_all(lambda: resolved(storage_path(run.model_dir, "MODEL_DIR")))
    if start is not None:
        given = run_on_all(lambda: resolved(storage_path(start, "INITIAL_CHECKPOINT_PATH")))
    if given is not None and (own == given or RunFolder(own).checkpoints == given.parent):
        raise UserError(
            f"INITIAL_CHECKPOINT_PATH {start!r} is of MODEL_DIR itself: write "
            "another MODEL_DIR to start a new run from it, or leave INITIAL_CHECKPOINT_PATH at "
            "None to go on with that run"
        )
    if from_first(RunFolder(own).checkpoint_steps):
        return None
    if start is None or given is None:
        return None
    dense = _start_config(config)
    source = run_on_all(lambda: open_source(given))
    if source is not None:
        if run.keep_optimizer_state:
            raise UserError(
                f"KEEP_OPTIMIZER_STATE = True, but {start} is a {source.format}, of which the "
                "parameters alone are read: leave it at False"
            )
        if run.restored_parameters is not None:
            restored_parameters.check(config, shapes_of(source.parameters), str(source.path))
            run_on_all(source.check_copies)
        else:
            run_on_all(lambda: source.check_model(dense.model, _remedy(config)))
        return source
    found = find_checkpoint(start)
    saved = part_shapes(found, "parameters")
    if run.restored_parameters is not None:
        restored_parameters.check(config, saved, str(found))
    else:
        wanted = shapes_of(abstract_parameters(dense.model))
        check_model(saved, wanted, f"the checkpoint {found}", _remedy(config))
    if restored_parameters.include_vocabulary(config):
        of_run = found.parent.parent
        run_on_all(lambda: check_vocabularies_of_run(of_run, config.data))
    if run.keep_optimizer_state:
        _check_optimizer(config, found)
    return found


def describe_warm_start(config: Config, checkpoint: epath.Path | Source) -> list[str]:
    """What the log says of the checkpoint that a run starts from."""
    if config.run.restored_parameters is not None:
        return restored_parameters.describe(config, str(checkpoint))
    kept = " and the optimiser's state" if config.run.keep_optimizer_state else ""
    if config.run.upcycle is not None:
        dense = "starting from a dense model: the experts are copies of the layers"
        return [f"{dense}{kept} of {checkpoint}"]
    return [f"starting from the parameters{kept} of {checkpoint}"]


def origin(start: epath.Path | Source | None) -> epath.Path | None:
    """Where the parameters that a run starts from lie, as run.json names it."""
    return start.path if isinstance(start, Source) else start


def initial_state(
    config: Config,
    abstract: TrainState,
    checkpoint: epath.Path | Source | None,
    teacher: Teacher | None = None,
) -> TrainState:
    """The state of a run before its first step, laid out as `abstract`.

    Args:
      config: the run.
      abstract: shapes, dtypes and shardings.
      checkpoint: its parameters are taken; None: they are drawn from the run's seed.
      teacher: with INITIALIZE_FROM_TEACHER, its parameters are taken in place of those drawn,
        wherever both models have the same one.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    # Steps fold their number into the same key: this is one that no run reaches.
    key = jax.random.fold_in(jax.random.key(config.run.random_seed), 2**32 - 1)
    if checkpoint is not None:
        return _from_checkpoint(config, abstract, checkpoint, key)
    if teacher is not None and config.distillation.initialize_from_teacher:
        return _from_teacher(config, abstract, teacher, key)
    init = functools.partial(init_state, config, make_optimizer(config))
    options = compiler_options()  # by default, drawing takes more memory than a step
    return jax.jit(init, out_shardings=_shardings(abstract), compiler_options=options)(key)


def _from_teacher(
    config: Config, abstract: TrainState, teacher: Teacher, key: jax.Array
) -> TrainState:
    """Drawn parameters, and in place of them the teacher's wherever both models have the same."""
    transformation = make_optimizer(config)
    weights = TeacherWeights(config.model, teacher.model)

    def start(key: jax.Array, given: Any) -> TrainState:
        parameters = weights.apply(init_parameters(config.model, key), given)
        return fresh_state(config, transformation, parameters)

    return jax.jit(start, out_shardings=_shardings(abstract))(key, teacher.load_for(weights))


def _from_checkpoint(
    config: Config, abstract: TrainState, checkpoint: epath.Path | Source, key: jax.Array
) -> TrainState:
    """The parameters of a checkpoint, with UPCYCLE the experts' from its feed-forward layers.

    With RESTORED_PARAMETERS a part of them, and the others as they are drawn for a new run.
    """
    run, model, transformation = config.run, config.model, make_optimizer(config)
    scaled = run.upcycle == "scaled_copy"

    def start(loaded: dict[str, Any], key: jax.Array) -> TrainState:
        parameters = loaded["parameters"]
        if run.restored_parameters is not None:
            drawn = init_parameters(model, key)
            parameters = restored_parameters.in_place_of(config, drawn, parameters)
        if run.upcycle is not None:
            parameters = upcycled(model, parameters, key, scaled=scaled, noise=run.upcycle_noise)
        state = fresh_state(config, transformation, parameters)
        if not run.keep_optimizer_state:
            return state
        optimizer = loaded["optimizer"]
        if run.upcycle is not None:
            optimizer = upcycled_moments(model, state.optimizer, optimizer)
        # The guard counts the updates that metrics.jsonl tells the learning rate of.
        guard = state.guard._replace(good=loaded["guard"]["good"])
        return state._replace(optimizer=optimizer, guard=guard)

    loaded = _load(config, abstract.step.sharding.mesh, checkpoint)
    # Experts have another shape than what they are copied from, so nothing can be reused.
    donated = "loaded" if run.upcycle is None else None
    compiled = jax.jit(
        start,
        donate_argnames=donated,
        out_shardings=_shardings(abstract),
        compiler_options=compiler_options(),
    )
    return compiled(loaded, key)


def _load(config: Config, mesh: Mesh, checkpoint: epath.Path | Source) -> dict[str, Any]:
    """The parts of the checkpoint that the run starts from; with UPCYCLE those of a dense model.

    With RESTORED_PARAMETERS the parameters alone that are restored, as the checkpoint has them.
    """
    wanted = abstract_state(_start_config(config), mesh)
    parameters = restored_parameters.as_saved(config, wanted.parameters)
    if isinstance(checkpoint, Source):
        return {"parameters": checkpoint.load(parameters)}
    parts = {"parameters": parameters}
    if config.run.keep_optimizer_state:
        parts |= {"optimizer": wanted.optimizer, "guard": {"good": wanted.guard.good}}
    return load_parts(checkpoint, parts)


def _shardings(abstract: TrainState) -> Any:
    return jax.tree.map(lambda s: s.sharding, abstract)


def _start_config(config: Config) -> Config:
    """The config with the model that the run starts from: with UPCYCLE, the dense one."""
    if config.run.upcycle is None:
        return config
    optimizer = dataclasses.replace(
        config.optimizer, trained_parameters="all", learning_rate_factors=None
    )
    dense = dense_twin(config.model, scaled=config.run.upcycle == "scaled_copy")
    return dataclasses.replace(config, model=dense, optimizer=optimizer)


def _check_optimizer(config: Config, checkpoint: epath.Path) -> None:
    """Raises UserError where a run cannot go on with the optimiser's state of a checkpoint."""
    if config.lr_decay_steps:
        raise UserError(
            f"KEEP_OPTIMIZER_STATE = True goes on with the count of updates, and LR_SCHEDULE = "
            f"{config.optimizer.lr_schedule!r} ends with TRAIN_STEPS: take 'rsqrt', 'warmup_rsqrt' "
            "or 'constant', or leave KEEP_OPTIMIZER_STATE at False"
        )
    optimizer, trained = config.optimizer.optimizer, config.optimizer.trained_parameters
    if config.run.upcycle is not None and (optimizer, trained) != ("adafactor", "all"):
        # The others correct their moments by the count of updates, which new routers have not had.
        raise UserError(
            f"with UPCYCLE, KEEP_OPTIMIZER_STATE = True takes OPTIMIZER = 'adafactor' and "
            f"TRAINED_PARAMETERS = 'all', not {optimizer!r} and {trained!r}: set them, or leave "
            "KEEP_OPTIMIZER_STATE at False"
        )
    dense = _start_config(config)
    state = jax.eval_shape(make_optimizer(dense).init, abstract_parameters(dense.model))
    check_part(checkpoint, "optimizer", state)


def _remedy(config: Config) -> str:
    """What to do where the checkpoint is of another model."""
    if config.run.upcycle is not None:
        return f"UPCYCLE = {config.run.upcycle!r} takes a checkpoint of a dense model"
    return (
        "use that model's config, or another checkpoint; or take a part of it with "
        "RESTORED_PARAMETERS, or experts from a dense model with UPCYCLE"
    )
