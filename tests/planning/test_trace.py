"""Seconds of operations and parts, of a real trace and of operations by hand."""

import jax
import jax.numpy as jnp
import pytest

from switch_jax.planning import trace
from switch_jax.planning.hlo import Operation, operations


def test_a_trace_on_this_machine_names_the_programs_operations(tmp_path):
    @jax.jit
    def step(x):
        with jax.named_scope("experts"):
            y = x @ x
        with jax.named_scope("attention"):
            return jnp.sort(y)  # not fused with the product

    x = jnp.ones((512, 512))
    compiled = step.lower(x).compile()
    compiled(x).block_until_ready()
    jax.profiler.start_trace(str(tmp_path))
    for _ in range(3):
        compiled(x).block_until_ready()
    jax.profiler.stop_trace()
    seconds = trace.operation_seconds(tmp_path)
    parts = trace.seconds_by_part(seconds, operations(compiled.as_text()))
    assert {"experts", "attention"} <= set(parts) and all(s > 0 for s in parts.values())
    assert trace.exchange_seconds(seconds) == 0.0


class Event:
    """As `jax.profiler.ProfileData` has them."""

    def __init__(self, name, nanoseconds, **stats):
        self.name, self.duration_ns, self.stats = name, nanoseconds, list(stats.items())


class Named:
    """A plane or a line."""

    def __init__(self, name, *inside):
        self.name, self.lines, self.events, self.planes = name, inside, inside, inside


def test_the_names_of_tpus_and_gpus(monkeypatch, tmp_path):
    fusion = Event("%fusion.2 = f32[8]{0} fusion(f32[8] %p)", 3e9)
    tpu = Named(
        "/device:TPU:0",
        Named("XLA Ops", fusion, Event("all-to-all.1", 2e9)),
        Named("XLA Modules", Event("jit_train_step(123)", 9e9)),
    )
    gpu = Named(
        "/device:GPU:0",
        Named("Stream #1", Event("kernel", 1e9, hlo_op="fusion.2"), Event("memcpy", 5e9)),
    )
    (tmp_path / "host.xplane.pb").touch()
    monkeypatch.setattr(jax.profiler.ProfileData, "from_file", lambda file: Named("", tpu, gpu))
    seconds = trace.operation_seconds(tmp_path)
    assert seconds == {"fusion.2": 4.0, "all-to-all.1": 2.0}
    assert trace.exchange_seconds(seconds) == 2.0


def test_exchanges_are_a_part_and_loops_count_by_what_they_contain():
    def operation(name, opcode, scope=""):
        return Operation(name, opcode, "f32[8]", "()", 1, 0, f"jit(train_step)/{scope}/x")

    found = [
        operation("fusion.1", "fusion", "attention"),
        operation("fusion.2", "fusion", "attention"),
        operation("while.1", "while"),
        operation("all-reduce-start.1", "all-reduce-start", "attention"),
        operation("all-reduce-done.1", "all-reduce-done", "attention"),
        operation("copy.1", "copy"),
        operation("unseen", "fusion", "experts"),
    ]
    seconds = {
        "fusion.1": 1.0, "fusion.2": 2.0, "while.1": 50.0, "copy.1": 0.5,
        "all-reduce-start.1": 0.25, "all-reduce-done.1": 4.0, "of another program": 9.0,
    }  # fmt: skip
    parts = trace.seconds_by_part(seconds, found)
    assert list(parts.items()) == [
        (trace.EXCHANGES, pytest.approx(4.25)),
        ("attention", 3.0),
        ("other", 0.5),
    ]
