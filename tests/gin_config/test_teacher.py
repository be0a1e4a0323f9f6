import json

from switch_jax import gin_config
from switch_jax.gin_config.teacher import with_teacher
from tests.trainer.helpers import tiny_config, tiny_model


def test_groups_and_attention_of_the_teacher_are_those_of_the_students_config(storage):
    """All else is as in the teacher's run."""
    own = tiny_config(tiny_model(num_embeddings=1152))
    (storage / "config.json").write_text(json.dumps(own.settings()))
    student = ["models/t5_demo.gin", "runs/demo.gin", "runs/distill.gin"]
    changes = [f"TEACHER_DIR='{storage}'", "TEACHER_GROUP_SIZE=256", "GPU_ATTENTION='cudnn'"]
    config = gin_config.read(student, changes, [], unneeded=["MODEL_DIR"]).config
    teacher = with_teacher(config).teacher
    assert teacher == own.replace("model", group_size=256, gpu_attention="cudnn")
