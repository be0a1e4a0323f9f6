"""Has the data of the first of several processes stop coming after four batches, for good."""

import time

import jax

from switch_jax.data.train_batches import TrainBatches
from switch_jax.trainer import train


class Stalling(TrainBatches):
    def __next__(self):
        batch, position = super().__next__()
        if position.batches == 5 and jax.process_index() == 0:
            time.sleep(10_000)
        return batch, position


train.TrainBatches = Stalling
