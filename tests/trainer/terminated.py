"""Has the second of several processes be asked to terminate before its fourth batch."""

import os
import signal

import jax

from switch_jax.data.train_batches import TrainBatches
from switch_jax.trainer import train


class Terminated(TrainBatches):
    def __next__(self):
        batch, position = super().__next__()
        if position.batches == 4 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch, position


train.TrainBatches = Terminated
