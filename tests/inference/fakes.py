"""A predictor without a model, for tests of what is made of its results."""

import numpy as np

from switch_jax.inference.predictor import Prediction
from tests.trainer.helpers import STACKS


class FakePredictor:
    """Predicts from the inputs and the index of an example, by default EOS alone.

    The score is minus the index.

    Attributes:
      calls: the kind of each call, and the inputs of its examples.
    """

    stacks = STACKS

    def __init__(self, predict=lambda inputs, index: [1] * 8):
        self._predict, self.calls = predict, []

    def predict(self, parameters, examples, first_id=0):
        for index, inputs in enumerate(self._inputs("predict", examples), start=first_id):
            yield Prediction(np.array(self._predict(inputs, index), np.int32), -float(index))

    def score(self, parameters, examples):
        for index, _ in enumerate(self._inputs("score", examples)):
            yield -float(index)

    def _inputs(self, kind, examples):
        inputs = [list(map(int, example.get("inputs", ()))) for example in examples]
        self.calls.append((kind, inputs))
        return inputs
