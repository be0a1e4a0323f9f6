from switch_jax import gin_config
from switch_jax.gin_config.teacher import with_teacher


def test_groups_and_attention_of_the_teacher_are_those_of_the_students_config(storage):
    """All else is as in the teacher's run."""
    run = "include 'models/switch_demo.gin'\ninclude 'runs/demo.gin'\nNUM_EXPERTS = 4\n"
    (storage / "config.gin").write_text(run)
    student = ["models/t5_demo.gin", "runs/demo.gin", "runs/distill.gin"]
    changes = [f"TEACHER_DIR='{storage}'", "TEACHER_GROUP_SIZE=256", "GPU_ATTENTION='cudnn'"]
    config = gin_config.read(student, changes, [], unneeded=["MODEL_DIR"]).config
    teacher = with_teacher(config, []).teacher_model
    assert (teacher.num_experts, teacher.group_size) == (4, 256)
    assert teacher.gpu_attention == "cudnn"
