"""Inference with a trained model: decoding, and scoring of given targets.

`InteractiveModel` is for Python, `infer` for files and tasks; both use a `Predictor`, whose
programs `decoding` makes. Metrics of tasks and of checkpoints are in `switch_jax.evaluation`.
"""

from switch_jax.inference.decoding import DecodingConfig, make_decode, make_score
from switch_jax.inference.sampling import Decoded
