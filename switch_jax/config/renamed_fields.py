"""Fields of the config that had other names in earlier versions, whose gin files are still read."""

import dataclasses
from typing import Any

from switch_jax.config.model import ModelConfig

RENAMED = {
    "ModelConfig.vocab_size": "ModelConfig.num_embeddings",
    "ModelConfig.d_model": "ModelConfig.embed_dim",
    "ModelConfig.d_ff": "ModelConfig.mlp_dim",
    "ModelConfig.d_kv": "ModelConfig.head_dim",
    "ModelConfig.expert_d_ff": "ModelConfig.expert_mlp_dim",
    "ModelConfig.train_capacity_factor": "ModelConfig.train_expert_capacity_factor",
    "ModelConfig.eval_capacity_factor": "ModelConfig.eval_expert_capacity_factor",
    "ModelConfig.min_capacity": "ModelConfig.min_expert_capacity",
    "ModelConfig.capacity_multiple": "ModelConfig.expert_capacity_multiple",
    "ModelConfig.jitter": "ModelConfig.jitter_noise",
    "ModelConfig.init_scale": "ModelConfig.scale",
    "ModelConfig.dtype": "ModelConfig.activation_dtype",
    "RunConfig.initial_checkpoint": "RunConfig.initial_checkpoint_path",
    "RunConfig.seed": "RunConfig.random_seed",
    "RunConfig.eval_batches": "RunConfig.eval_steps",
    "RunConfig.keep_best": "RunConfig.keep_best_checkpoints",
    "RunConfig.keep_set_aside": "RunConfig.keep_set_aside_checkpoints",
    "DataConfig.shuffle": "DataConfig.shuffle_train_examples",
    "DataConfig.seed": "DataConfig.random_seed",
    "DataConfig.num_streams": "DataConfig.data_streams",
    "DataConfig.use_cached": "DataConfig.use_cached_tasks",
    "OptimizerConfig.schedule": "OptimizerConfig.lr_schedule",
    "LossConfig.load_balance": "LossConfig.aux_loss_factor",
    "LossConfig.router_z": "LossConfig.router_z_loss_factor",
    "GuardConfig.window": "GuardConfig.spike_window",
    "GuardConfig.sigmas": "GuardConfig.spike_sigmas",
    "GuardConfig.bad_steps_in_a_row": "GuardConfig.max_bad_steps",
    "GuardConfig.rollbacks": "GuardConfig.max_rollbacks",
}

# Fields that earlier versions did not have; their defaults are what those versions did.
_ADDED = (
    "router_policy",
    "router_input_dropout_rate",
    "router_dtype",
    "num_selected_experts",
    "second_expert_policy",
    "second_expert_threshold",
    "ntlb_rounds",
    "shared_expert_mlp_dim",
    "load_balance",
    "expert_sublayers",
    "gpu_attention",
)


def recorded_model(model: ModelConfig) -> dict[str, Any]:
    """The model's fields under their first names, as evaluations of all versions record them.

    A field that the first versions did not have is recorded where it is not at its default.
    """
    first_names = {
        new.split(".")[1]: old.split(".")[1] for old, new in RENAMED.items() if "Model" in old
    }
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    return {
        first_names.get(name, name): value
        for name, value in dataclasses.asdict(model).items()
        if name not in _ADDED or value != defaults[name]
    }
