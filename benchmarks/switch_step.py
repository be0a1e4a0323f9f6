"""CPU time and memory of a training step: Switch, the dense model of the same FLOPs, and peers.

    python benchmarks/switch_step.py [--experts 8 32 128] [--torch_python PATH]

One core and one thread, float32, the same optimiser. The peers are our own model with the one-hot
einsum layer of the original papers, and Hugging Face's T5 and SwitchTransformers (in a Python that
has torch and transformers). Each model has a process of its own and all take turns step by step, so
that whatever else the machine does hits them alike. The figures are the median of the process' CPU
time (user and system) over the steps, and the peak memory of the process, compilation included.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np  # noqa: E402  after the flags
from step_models import Sizes, hugging_face_step, our_step, torch_python  # noqa: E402

SIZES = Sizes(d_model=256, d_ff=1024, heads=8, layers=4, rows=8, inputs=128, targets=32)


def use_one_hot_einsum() -> None:
    """Puts the layer of the original papers in the place of ours, in this process.

    Tokens go to slots and back by products with [G, S, E, C] masks. The router is ours.
    """
    import jax
    import jax.numpy as jnp

    from switch_jax import moe
    from switch_jax.model import feed_forward
    from switch_jax.moe.random_streams import RouterKey

    def switch_ffn(x, tokens, weights, router, activation, *, training, key):
        groups, size = router.group_shape(*x.shape[:2])
        slots = router.capacity(size, training=training)
        key = RouterKey(key.stack_key, key.layer, 0, size)
        logits = router.logits(x, weights.router, key).reshape(groups, size, -1)
        valid = tokens.valid.reshape(groups, size)
        assignment = moe.assign(logits, slots, valid)
        expert = jax.nn.one_hot(assignment.expert_index[:, 0], logits.shape[-1])
        slot = assignment.position_in_expert[:, 0]
        mask = expert[..., None] * jax.nn.one_hot(slot, slots)[:, :, None]
        rows = jnp.einsum("gsd,gsec->egcd", x.reshape(groups, size, -1), mask)
        hidden = activation(*[jnp.einsum("egcd,edf->egcf", rows, w) for w in weights.wi])
        rows = jnp.einsum("egcf,efd->egcd", hidden, weights.wo)
        y = jnp.einsum("egcd,gsec->gsd", rows, mask * assignment.gate[:, 0, :, None, None])
        sums = moe.RouterStatistics(
            load=assignment.load.sum(0) / x[..., 0].size,
            load_balance_loss=moe.load_balance_loss(assignment.router.importance, assignment.load),
            z_loss=moe.router_z_loss(assignment.router.log_normalizer, valid),
            dropped=jnp.mean(slot == slots, dtype=jnp.float32),
            entropy=assignment.router.entropy.mean(),
            router_logit_max=assignment.router.highest_logit.max()[None],
        )
        return y.reshape(x.shape), sums

    feed_forward.switch_ffn = switch_ffn


def serve(kind: str, experts: int) -> None:
    """A model's process: for each line read, a step and its CPU seconds; at the end, its peak."""
    if kind == "torch":
        import torch

        torch.set_num_threads(1)
        run = hugging_face_step(SIZES, experts)
    else:
        if kind == "einsum":
            use_one_hot_einsum()
        run = our_step(SIZES, experts)
    for _ in range(2):  # compilation, and the first touch of the memory
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        loss = run()
        print(time.process_time() - start, loss, flush=True)
    # Not getrusage, whose maximum a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024, flush=True)


class Model:
    """A model in a process of its own, and what was measured of it."""

    def __init__(self, kind: str, experts: int, python: str) -> None:
        name = f"Switch, {experts} experts" if experts else "dense"
        names = {"gather": "", "einsum": ", one-hot einsum", "torch": ", Hugging Face"}
        self.name = name + names[kind]
        self.seconds: list[float] = []
        self.process = subprocess.Popen(
            [python, __file__, "--serve", kind, "--experts", str(experts)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.read()

    def read(self) -> list[str]:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the process of '{self.name}' ended early; its message is above")
        return line.split()

    def step(self) -> None:
        self.process.stdin.write("step\n")
        seconds, loss = map(float, self.read())
        if not np.isfinite(loss):
            sys.exit(f"'{self.name}' diverged: its loss is {loss}")
        self.seconds.append(seconds)

    def finish(self) -> float:
        """Ends the process; returns its peak memory in MiB."""
        self.process.stdin.close()
        return float(self.read()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=9, help="measured, of each model")
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument(
        "--torch_python", metavar="PATH",
        help="an interpreter that has torch and transformers, where this one has not",
    )  # fmt: skip
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.experts[0])
        return

    wanted = [("gather", n, sys.executable) for n in (0, *args.experts)]
    wanted += [("einsum", n, sys.executable) for n in args.experts]
    if python := torch_python(args.torch_python):
        wanted += [("torch", n, python) for n in (0, *args.experts)]
    models = [Model(*each) for each in wanted]
    for _ in range(args.steps):
        for model in models:
            model.step()
    dense = statistics.median(models[0].seconds)
    print("| model | CPU ms a step | fastest step | ratio to dense | peak memory MiB |")
    print("|---|---|---|---|---|")
    for model in models:
        median, fastest = statistics.median(model.seconds), min(model.seconds)
        figures = f"{median * 1000:.0f} | {fastest * 1000:.0f} | {median / dense:.2f}"
        print(f"| {model.name} | {figures} | {model.finish():.0f} |", flush=True)


if __name__ == "__main__":
    main()
