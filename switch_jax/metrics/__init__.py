"""What a run tells: metrics.jsonl, TensorBoard, and a progress bar."""

from switch_jax.metrics.progress import Progress
from switch_jax.metrics.writer import MetricWriter

__all__ = ["MetricWriter", "Progress"]
