"""What `run.json` holds."""

from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.catalogue.configured_tasks import vocabulary_fingerprints
from switch_jax.model.flops import active_parameter_count, flops_per_token, parameter_count
from switch_jax.trainer.start.teacher import Teacher


def run_json_fields(config: Config, mesh: Mesh, teacher: Teacher | None) -> dict[str, Any]:
    """The fields of run.json that follow from the config and the devices; docs/run_folder.md."""
    run, model = config.run, config.model
    # Experts can choose where a token may depend on those after it.
    router_types = {f"{s.name}_router_type": s.router_type for s in model.stacks if not s.causal}
    return {
        "parameters": parameter_count(model),
        "active_parameters": active_parameter_count(model),
        "num_experts": model.num_experts,
        "sparse_layers": {stack.name: list(stack.sparse_layers) for stack in model.stacks},
        **router_types,
        "flops_per_token": flops_per_token(model, config.data.task_feature_lengths),
        "mesh": dict(mesh.shape),
        "device": f"{jax.devices()[0].device_kind} x {mesh.size}",
        "train_steps": run.train_steps,
        "batch_tokens": config.tokens_per_step,
        "seed": run.random_seed,
        "vocabulary": vocabulary_fingerprints(config.data),
        "teacher_checkpoint": None if teacher is None else str(teacher.checkpoint),
    }
