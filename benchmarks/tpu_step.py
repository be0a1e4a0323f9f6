"""Training steps on TPU slices, from the TPU's own compiler: a row of a table for each.

    python benchmarks/tpu_step.py                        # what there is
    python benchmarks/tpu_step.py t5_base switch_base    # some minutes each

Each is `switch_jax plan` on a model of gin/models/ with runs/pretrain.gin: lengths 512 and 114,
batch 2048 unless the row says otherwise, optimiser and all. "Of peak" is the model's FLOPs, without
empty expert slots, over what the matrix units could do in the estimated cycles, and in the whole
step, with waiting; "FLOPs" are the compiled ones over the model's, with empty slots; "ms" are of
computation, and of waiting for exchanges, with what all exchanges take; "s" are of compilation on
this machine. In brackets is what a part would take at least (docs/planning.md).
"""

import argparse
import json
import subprocess
import sys

# By name: what `switch_jax plan` gets. 128 v5p chips with 16 rows, 8192 input tokens, each:
BASE = "--topology=v5p-256 --gin_file=models/{}.gin "
SCANNED = " --gin.SCAN_LAYERS=True"
WHOLE = " --gin.FULLY_SHARDED_WEIGHTS=False"
LARGE = " --gin.REMAT_POLICY=minimal" + SCANNED
RUN = "--gin_file=runs/pretrain.gin"
FACTOR = " --gin.TRAIN_EXPERT_CAPACITY_FACTOR="
T5 = BASE.format("t5_base") + "--mesh=128,1,1"
SWITCH = BASE.format("switch_base") + "--mesh=1,128,1"
T5_LARGE = BASE.format("t5_large") + "--mesh=128,1,1"
SWITCH_LARGE = BASE.format("switch_large") + "--mesh=1,128,1"
SCANNED_T5, SCANNED_SWITCH = T5 + WHOLE + SCANNED, SWITCH + WHOLE + SCANNED
TWO_SLICES = (
    "--topology=2xv5e-256 --gin_file=models/switch_base.gin --mesh=4,128,1 "
    "--gin.GROUP_SIZE=2048 --gin.DECODER_GROUP_SIZE=512"
)
V4, V6E = ("v5p-256", "v4-256"), ("v5p-256", "v6e-128")
STEPS = {
    "t5_base": T5,
    "switch_base": SWITCH,
    "t5_large": T5_LARGE,
    "switch_large": SWITCH_LARGE,
    "switch_base_8_ways": SWITCH.replace("1,128,1", "16,8,1"),
    "switch_base_2_model_ways": SWITCH.replace("1,128,1", "1,64,2"),
    # 128 experts, and 16 rows a chip, on other numbers of chips than switch_base has.
    **{
        f"switch_base_{chips}_chips": SWITCH.replace("v5p-256", f"v5p-{2 * chips}").replace(
            "1,128,1", f"{max(1, chips // 128)},{min(chips, 128)},1"
        )
        + f" --gin.BATCH_SIZE={16 * chips}"
        for chips in (8, 16, 32, 64, 256)
    },
    "switch_xxl": "--topology=v5p-1024 --gin_file=models/switch_xxl.gin --mesh=1,128,4" + LARGE,
    "switch_xxl_v5p_256": BASE.format("switch_xxl") + "--mesh=1,128,1" + LARGE,
    "switch_c": "--topology=v5p-1024 --gin_file=models/switch_c.gin --mesh=1,512,1 "
    "--gin.BATCH_SIZE=8192" + LARGE,
    "switch_c_v5p_4096": "--topology=v5p-4096 --gin_file=models/switch_c.gin --mesh=1,512,4 "
    "--gin.BATCH_SIZE=8192" + LARGE,
    "t5_xxl": "--topology=v5p-1024 --gin_file=models/t5_1_1_xxl.gin --mesh=128,1,4" + LARGE,
    "t5_base_whole": T5 + WHOLE,
    "switch_base_whole": SWITCH + WHOLE,
    "switch_base_8_ways_whole": SWITCH.replace("1,128,1", "16,8,1") + WHOLE,
    "t5_large_whole": T5_LARGE + WHOLE,
    "switch_large_whole": SWITCH_LARGE + WHOLE,
    "switch_base_factor_1": SWITCH + WHOLE + FACTOR + "1.0",
    "switch_base_factor_2": SWITCH + WHOLE + FACTOR + "2.0",
    "switch_base_16_experts": SWITCH.replace("1,128,1", "8,16,1") + WHOLE + " --gin.NUM_EXPERTS=16",
    "switch_large_v5p_128": "--topology=v5p-128 --gin_file=models/switch_large.gin --mesh=1,64,1 "
    "--gin.BATCH_SIZE=1024" + WHOLE,
    "t5_base_scanned": SCANNED_T5,
    "switch_base_scanned": SCANNED_SWITCH,
    "switch_large_scanned": SWITCH_LARGE + WHOLE + SCANNED,
    "t5_base_v4": SCANNED_T5.replace(*V4),
    "switch_base_v4": SCANNED_SWITCH.replace(*V4),
    "t5_base_v6e": SCANNED_T5.replace(*V6E),
    "switch_base_v6e": SCANNED_SWITCH.replace(*V6E),
    "switch_base_v3": "--topology=v3-32 --gin_file=models/switch_base.gin --mesh=1,32,1 "
    "--gin.BATCH_SIZE=512" + WHOLE + SCANNED,
    "switch_base_64_two_slices": "--topology=2xv5p-128 --gin_file=models/switch_base_64.gin "
    "--mesh=2,64,1",
    "switch_base_two_slices": TWO_SLICES,
    "switch_base_two_slices_scanned": TWO_SLICES + SCANNED,
}


def plan(flags: str) -> dict:
    """What `switch_jax plan` prints as JSON."""
    run = "import sys; from switch_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "plan", *flags.split()]
    command += [RUN, "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode not in (0, 3):
        sys.exit(result.returncode)
    return json.loads(result.stdout)


def row(name: str) -> str:
    """A row of the table."""
    p = plan(STEPS[name])
    mesh = ",".join(map(str, p["mesh"].values()))
    memory = f"{p['hbm_bytes_per_chip'] / 2**30:.1f} of {p['hbm_limit_bytes'] / 2**30:.0f}"
    if not p["fits"]:
        return f"| {name} | {p['topology']} | {mesh} | out of memory | | | {memory} | | | |"
    floors = p["floor_by_part"]
    parts = ", ".join(
        f"{k} {v / 1e6:.2f} ({floors[k] / 1e6:.2f})" for k, v in p["cycles_by_part"].items()
    )
    return (
        f"| {name} | {p['topology']} | {mesh} | {p['estimated_cycles'] / 1e6:.2f}M "
        f"| {p['utilisation']:.1%}, {p['utilisation_with_waiting']:.0%} "
        f"| {p['compiled_flops'] / p['model_flops_with_empty_slots']:.3f} | {memory} "
        f"| {p['compute_seconds'] * 1e3:.1f} + {p['waiting_seconds'] * 1e3:.1f} "
        f"of {p['collective_seconds'] * 1e3:.1f} | {p['compile_seconds']:.0f} "
        f"| {parts} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(STEPS))
    names = parser.parse_args().names
    if not names:
        for name, flags in STEPS.items():
            print(f"{name}: switch_jax plan {flags} {RUN}")
        return
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    heads = "step | slice | mesh | cycles | of peak, with waiting | FLOPs | GiB a chip | ms"
    print(f"| {heads} | s to compile | M cycles by part (at least) |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
