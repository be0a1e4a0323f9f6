"""The slots that the tokens of pictures take."""

from functools import partial

import jax
import numpy as np

from switch_jax.moe.slots import take_slots


def tokens_in_slots(choices: np.ndarray, experts: int, slots: int) -> list[list[list[int | None]]]:
    """The token in each slot of each expert in each group, None where a slot is empty.

    `choices` [G, S] are the experts that the tokens choose.
    """
    take = jax.jit(partial(take_slots, experts=experts, capacity=slots))
    _, taken, _ = take(choices)  # [G, E, C]
    nobody = choices.shape[1]
    return [
        [[None if i == nobody else i for i in row] for row in group] for group in taken.tolist()
    ]
