"""Inference with a trained model: decoding, and scoring of given targets.

- `interactive`: `InteractiveModel`, whose `generate` and `score` take lists of texts.
- `infer`: what `switch_jax infer` does: predictions or scores of files and tasks.
- `predictor`: decodes or scores any number of examples, batch by batch.
- `decoding`: what is compiled: `make_decode`, `make_score`, and how to decode.
- `sampling`, `beam_search`: greedy decoding and sampling, and beams.
- `trained_model`: the model in a folder: its config, its mesh, and how its parameters are read.
- `batch_and_mesh`: the batch, groups and mesh that fit this machine.
- `routing`: which experts the tokens of a text go to.
- `continuations`: held-out text as several models go on with it.
- `input_records`: examples from lines of text and JSON.
- `resumable_output`: an output file that an interrupted command goes on with.

Metrics of tasks and of checkpoints are in `switch_jax.evaluation`.
"""

from switch_jax.inference.decoding import DecodingConfig, make_decode, make_score
from switch_jax.inference.sampling import Decoded
