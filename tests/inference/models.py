"""A model for the tests of inference."""

from switch_jax.config import ModelConfig

DENSE = ModelConfig(
    num_embeddings=8,
    embed_dim=16,
    mlp_dim=32,
    head_dim=8,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    activation_dtype="float32",
)
