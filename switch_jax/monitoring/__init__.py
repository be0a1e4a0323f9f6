"""Measures and shows a run: records, progress, goodput, memory, profiler traces, hanging steps."""

from switch_jax.monitoring.goodput import Goodput, InputBound
from switch_jax.monitoring.memory import memory_in_use
from switch_jax.monitoring.profiling import Profiler
from switch_jax.monitoring.progress import Progress
from switch_jax.monitoring.watchdog import Watchdog
from switch_jax.monitoring.writer import MetricWriter
