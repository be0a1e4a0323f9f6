"""The paper's comparisons with the models of the demo, three seeds each (docs/experiments.md).

    python benchmarks/paper_in_small.py --picture docs/in_small.png
    python benchmarks/paper_in_small.py --runs runs/in_small --train --tables 11 figure_12

The second command trains what is missing, five minutes a run on a quiet core, and prints it. A
stopped call goes on where it was. Two calls with other tables go side by side, each under
`taskset --cpu-list`. The tables have held-out negative log perplexities after the last step, as
mean and standard deviation over the seeds.
"""

from in_small import DENSE, SWITCH, last, parser, print_table, train
from matplotlib.figure import Figure
from results import RESULTS, read

TOP_2 = ("NUM_SELECTED_EXPERTS=2", "SECOND_EXPERT_POLICY=random")
# By name: what a run has beside the demo. Those of DISTILLED learn from `switch` of their seed.
SPARSE = {
    "switch": (),
    "top1_1.0": ("TRAIN_EXPERT_CAPACITY_FACTOR=1.0",),
    "top1_2.0": ("TRAIN_EXPERT_CAPACITY_FACTOR=2.0",),
    "top2_1.0": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=1.0"),
    "top2_1.25": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=1.25"),
    "top2_2.0": (*TOP_2, "TRAIN_EXPERT_CAPACITY_FACTOR=2.0"),
    "selective": ("ACTIVATION_DTYPE=bfloat16",),
    "bfloat16": ("ACTIVATION_DTYPE=bfloat16", "ROUTER_DTYPE=bfloat16"),
    "scale_0.1": ("SCALE=0.1",),
    "argmax": ("JITTER_NOISE=0.0",),
    "sample": ("JITTER_NOISE=0.0", "ROUTER_POLICY=sample"),
    "input_dropout": ("JITTER_NOISE=0.0", "ROUTER_POLICY=input_dropout"),
    "four_rounds": ("NTLB_ROUNDS=4",),
    "experts_2": ("NUM_EXPERTS=2",),
    "experts_4": ("NUM_EXPERTS=4",),
    "attention": ("EXPERT_SUBLAYERS=attention",),
    "both": ("EXPERT_SUBLAYERS=both",),
}
DISTILLED = {
    "distilled": ("DISTILLATION_FRACTION_SOFT=1.0", "INITIALIZE_FROM_TEACHER=False"),
    "initialized": ("DISTILLATION_FRACTION_SOFT=1.0",),
    "mixed": (),
    "control": ("DISTILLATION_FRACTION_SOFT=0.0",),
}
# By name of the table: the runs of its rows, by label.
TABLES = {
    "1": {
        "T5": "dense",
        "MoE, factor 2.0": "top2_2.0",
        "Switch, 2.0": "top1_2.0",
        "MoE, 1.25": "top2_1.25",
        "Switch, 1.25": "switch",
        "MoE, 1.0": "top2_1.0",
        "Switch, 1.0": "top1_1.0",
    },
    "2": {"float32": "switch", "selective": "selective", "bfloat16": "bfloat16"},
    "3": {"scale 1.0": "switch", "scale 0.1": "scale_0.1"},
    "6": {
        "T5": "dense",
        "teacher": "switch",
        "distillation": "distilled",
        "+ the teacher's weights": "initialized",
        "+ 0.75 hard loss": "mixed",
        "these weights alone": "control",
    },
    "10": {"in feed-forward layers": "switch", "in attention": "attention", "in both": "both"},
    "11": {
        "argmax": "argmax",
        "sample softmax": "sample",
        "input dropout": "input_dropout",
        "input jitter": "switch",
    },
    "figure_11": {"top-1": "switch", "No-Token-Left-Behind": "four_rounds"},
    "figure_12": {"T5": "dense", "2 experts": "experts_2", "4": "experts_4", "8": "switch"},
    # docs/training_small_models.md
    "settings": {
        "the demo's Switch": "switch",
        "`TRAIN_EXPERT_CAPACITY_FACTOR=1.0`, which drops 6 %": "top1_1.0",
        "`TRAIN_EXPERT_CAPACITY_FACTOR=2.0`": "top1_2.0",
        "`NTLB_ROUNDS=4`": "four_rounds",
        "`NUM_SELECTED_EXPERTS=2`, factor 2.0": "top2_2.0",
        "`ACTIVATION_DTYPE=bfloat16`": "selective",
        "`ROUTER_DTYPE=bfloat16`, too": "bfloat16",
        "`JITTER_NOISE=0.0`": "argmax",
        "`SCALE=0.1`": "scale_0.1",
        "`ROUTER_POLICY=input_dropout`, without jitter": "input_dropout",
        "`EXPERT_SUBLAYERS=both`": "both",
        "`EXPERT_SUBLAYERS=attention`": "attention",
        "`ROUTER_POLICY=sample`, without jitter": "sample",
    },
}

TITLES = {
    "1": "Table 1: Switch, MoE and T5",
    "2": "Table 2: precision",
    "3": "Table 3: initial scale",
    "6": "Table 6: distillation",
    "10": "Table 10: experts in attention",
    "11": "Table 11: router policies",
    "figure_11": "Figure 11: No-Token-Left-Behind",
    "figure_12": "Figure 12: few experts",
}

flags = parser(__doc__, TABLES)
flags.add_argument("--picture", help="file to draw")
args = flags.parse_args()
if args.train:
    names = {name for table in args.tables for name in TABLES[table].values()}
    for name in sorted(names, key=lambda name: (name != "switch", name)):  # the teacher first
        for seed in range(3):
            files, macros = [], [f"RANDOM_SEED={seed}", *(SPARSE | DISTILLED).get(name, ())]
            if name in DISTILLED:
                files.append("runs/distill.gin")
                macros.append(f"TEACHER_DIR={args.runs / f'switch_{seed}'}")
            model = SWITCH if name in SPARSE else DENSE
            train(args.runs / f"{name}_{seed}", model, macros, files)
table = read(args.runs or RESULTS / "in_small.parquet")
for name in args.tables:
    print(f"\n{TITLES.get(name, name)}")
    print_table(table, TABLES[name])

if not args.picture:
    raise SystemExit
drawn = [name for name in args.tables if name in TITLES]
sizes = [len(TABLES[name]) for name in drawn]
height = 0.27 * sum(sizes) + 0.42 * len(sizes) + 0.5  # inches
figure = Figure((8.0, height), layout="constrained", dpi=150)
panels = figure.subplots(len(sizes), squeeze=False, sharex=True, height_ratios=sizes)[:, 0]
for ax, name in zip(panels, drawn, strict=True):
    for y, run in enumerate(TABLES[name].values()):
        quality, colour = last(table, run), "#0072B2" if y else "#D55E00"
        spread = quality.std(ddof=1) if len(quality) > 1 else 0
        ax.errorbar(quality.mean(), y, xerr=spread, fmt="o", color=colour, capsize=3)
        if not y:
            ax.axvline(quality.mean(), color=colour, linewidth=1, linestyle=":")
    ax.set_yticks(range(len(TABLES[name])), list(TABLES[name]), fontsize=9)
    ax.set_ylim(len(TABLES[name]) - 0.5, -0.5)
    ax.set_title(TITLES[name], loc="left", fontsize=10, fontweight="bold")
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
panels[-1].set_xlabel("held-out negative log perplexity [nats], higher is better")
figure.savefig(args.picture)
