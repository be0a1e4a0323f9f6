"""Training steps on a GPU: our models, with XLA's attention and cuDNN's, and Hugging Face's.

    python benchmarks/gpu_step.py [--size base] [--experts 8] [--torch_python PATH]

A table: tokens a second, share of the GPU's bfloat16 peak, the peak of memory, and the loss after
some steps, which should be the same for both attentions but for rounding. Activations are bfloat16,
parameters float32, the optimiser Adafactor, on random tokens; our rows are two packed examples and
some padding, which are computed like the rest. Each model has a process of its own, one after the
other. Hugging Face's models need torch with CUDA and transformers, in this Python or in the one
named. It runs on a CPU, too, where both attentions are XLA's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from step_models import Sizes, hugging_face_step, our_config, our_step, torch_python

# T5-Base and T5-Small, rows of the paper's lengths; 'tiny' shows that the command works.
SIZES = {
    "base": Sizes(768, 3072, 12, 12, rows=32, inputs=512, targets=114, dtype="bfloat16"),
    "small": Sizes(512, 2048, 8, 6, rows=64, inputs=512, targets=114, dtype="bfloat16"),
    "tiny": Sizes(32, 64, 4, 2, rows=2, inputs=16, targets=8, dtype="bfloat16"),
}
NAMES = {"xla": "XLA's attention", "cudnn": "cuDNN's attention", "torch": "Hugging Face"}


def measure(kind: str, sizes: Sizes, experts: int, steps: int) -> dict[str, object]:
    """Seconds of a step, the loss after the last one, the device, and its peak memory in bytes."""
    if kind == "torch":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        run = hugging_face_step(sizes, experts, device)
    else:
        import jax

        run = our_step(sizes, experts, packed=True, gpu_attention=kind)
    for _ in range(3):  # compilation, autotuning, and the first touch of the memory
        run()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = run()  # waits for the device
        seconds.append(time.perf_counter() - start)
    if kind == "torch":
        on_gpu = device == "cuda"
        name = torch.cuda.get_device_name() if on_gpu else "cpu"
        memory = torch.cuda.max_memory_allocated() if on_gpu else None
    else:
        name = jax.devices()[0].device_kind
        memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"seconds": statistics.median(seconds), "loss": loss, "device": name, "memory": memory}


def row(kind: str, args: argparse.Namespace, experts: int, python: str) -> str:
    """Measures a model in a process of its own; returns its row of the table."""
    from switch_jax.hardware.tpus import device_peak_flops
    from switch_jax.train_step.flops import step_flops

    name = f"Switch, {experts} experts" if experts else "dense"
    flags = [f"--size={args.size}", f"--steps={args.steps}", "--experts", str(experts)]
    command = [python, __file__, "--measure", kind, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return f"| {name}, {NAMES[kind]} | failed: its message is above | | | | | |"
    found = json.loads(done.stdout.splitlines()[-1])
    sizes = SIZES[args.size]
    tokens = sizes.rows * (sizes.inputs + sizes.targets) / found["seconds"]
    peak = device_peak_flops(found["device"])
    rate = step_flops(our_config(sizes, experts)) / found["seconds"]
    share = f"{rate / peak:.1%}" if peak else "peak not known"
    memory = f"{found['memory'] / 2**30:.1f}" if found["memory"] else "not known"
    figures = f"{1000 * found['seconds']:.1f} | {tokens:,.0f} | {share} | {memory}"
    return f"| {name}, {NAMES[kind]} | {found['device']} | {figures} | {found['loss']:.4f} |"


def main() -> None:
    """Prints the table, a row when it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="base", help="of the model and its batch")
    parser.add_argument("--experts", type=int, nargs="+", default=[8], help="of the Switch models")
    parser.add_argument("--steps", type=int, default=20, help="measured, of each model")
    parser.add_argument(
        "--torch_python", metavar="PATH",
        help="an interpreter that has torch and transformers, where this one has not",
    )  # fmt: skip
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, SIZES[args.size], args.experts[0], args.steps)))
        return
    ours, theirs = sys.executable, torch_python(args.torch_python)
    python = {"xla": ours, "cudnn": ours, "torch": theirs}
    print("| model | device | ms a step | tokens/s | of peak | GiB | loss |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for experts in (0, *args.experts):
        for kind, interpreter in python.items():
            if interpreter:
                print(row(kind, args, experts, interpreter), flush=True)


if __name__ == "__main__":
    main()
