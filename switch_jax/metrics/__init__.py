"""Measures and shows a run: records, progress, goodput, memory, profiler traces, hanging steps."""

from switch_jax.metrics.goodput import Goodput, InputBound
from switch_jax.metrics.memory import memory_in_use
from switch_jax.metrics.profiling import Profiler
from switch_jax.metrics.progress import Progress
from switch_jax.metrics.watchdog import Watchdog
from switch_jax.metrics.writer import MetricWriter
