"""Inference with a trained model: decoding, and scoring of given targets."""

from switch_jax.inference.decoding import DecodingConfig, make_decode, make_score
from switch_jax.inference.sampling import Decoded

__all__ = ["Decoded", "DecodingConfig", "make_decode", "make_score"]
