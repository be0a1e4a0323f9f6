"""Routing groups of the packaged Switch models, and what they drop at even routing: a table.

    python benchmarks/routing_groups.py

Nothing is trained: the numbers follow from the configs (`switch_jax.model.groups`). Each row is a
model, a batch of its run file, and how many devices along data and expert share it.
"""

from switch_jax import gin_config
from switch_jax.train_step.microbatches import check_batch, routing_groups

PRETRAIN, DEMO, STUDY = "runs/pretrain.gin", "runs/demo.gin", "benchmarks/gin/study.gin"
BASE = ["switch_base", "switch_base_geglu", "mswitch_base"]
FACTOR_1 = ["TRAIN_EXPERT_CAPACITY_FACTOR=1.0"]
# What the row is called, devices along data and expert, models, run file, bindings.
ROWS = [
    (", ".join(BASE), 128, BASE, PRETRAIN, []),
    ("switch_base", 64, BASE[:1], PRETRAIN, ["DECODER_GROUP_SIZE=4096"]),
    ("switch_base", 32, BASE[:1], PRETRAIN, ["DECODER_GROUP_SIZE=8192"]),
    ("switch_base", 256, BASE[:1], PRETRAIN, ["GROUP_SIZE=4096", "DECODER_GROUP_SIZE=1024"]),
    ("switch_base", 1024, BASE[:1], PRETRAIN, ["GROUP_SIZE=1024", "DECODER_GROUP_SIZE=256"]),
    ("switch_base", 128, BASE[:1], PRETRAIN, FACTOR_1),
    ("switch_base", 128, BASE[:1], PRETRAIN, [*FACTOR_1, "EXPERT_CAPACITY_MULTIPLE=1"]),
    ("switch_base_plus", 128, ["switch_base_plus"], PRETRAIN, []),
    ("moe_base", 128, ["moe_base"], PRETRAIN, []),
    ("switch_large, switch_large_geglu", 128, ["switch_large", "switch_large_geglu"], PRETRAIN, []),
    ("switch_xxl", 128, ["switch_xxl"], PRETRAIN, []),
    ("switch_xxl", 256, ["switch_xxl"], PRETRAIN, ["DECODER_GROUP_SIZE=1024"]),
    ("switch_c", 128, ["switch_c"], PRETRAIN, []),
    ("switch_c_2048", 128, ["switch_c_2048"], PRETRAIN, []),
    ("switch_demo", 2, ["switch_demo"], DEMO, []),
    ("switch_study", 1, ["switch_study"], STUDY, []),
]


def cells(model: str, run: str, devices: int, bindings: list[str]) -> list[str]:
    """The bindings, and for each stack tokens, slots, effective factor and drop."""
    given = ["MODEL_DIR=/none", "MIXTURE_OR_TASK_NAME=none", *bindings]
    config = gin_config.read([f"models/{model}.gin", run], given).config
    shape = {"data": devices, "expert": 1, "model": 1}
    check_batch(config, shape)
    row = [" ".join(f"`{binding}`" for binding in bindings)]
    for groups in routing_groups(config).values():
        row += [str(groups.tokens), str(groups.slots), f"{groups.capacity_factor:.2f}"]
        drop = groups.expected_drop  # None: tokens go to their next expert
        row.append("–" if drop is None else f"{100 * drop:.2f} %")
    return row


def main() -> None:
    """Prints the table."""
    head = ["model", "devices", "set"]
    for stack in ("encoder", "decoder"):
        head += [f"{stack}: tokens", "slots", "factor", "dropped"]
    lines = [head, ["---"] * len(head)]
    for label, devices, models, run, bindings in ROWS:
        alike = [cells(model, run, devices, bindings) for model in models]
        if any(row != alike[0] for row in alike):
            raise SystemExit(f"{label} have other groups: give each a row")
        lines.append([label, str(devices), *alike[0]])
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
