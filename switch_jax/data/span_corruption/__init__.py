"""T5's preprocessing of text for pretraining; `stateless_random` loads no TensorFlow."""
