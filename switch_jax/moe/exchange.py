"""The all-to-all between the devices that share out the experts."""

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from switch_jax.kernels.tiles import LANES, SUBLANES
from switch_jax.partitioning.devices import has_async_all_to_all
from switch_jax.partitioning.mesh import EXPERT, MODEL

# In a chunk with fewer rows of an expert, reading its weights takes more than a sixth of the time
# of its products on a v5p, and more than half on a v6e.
MIN_ROWS_OF_CHUNK = 1024

# Rematerialisation saves what carries this name, so that no all-to-all is ever repeated, nor a sum
# over devices of all logits.
EXCHANGED = "exchanged_tokens"


def num_expert_shards(num_experts: int) -> int:
    """Into how many parts the experts are split: one for each device of the expert axis.

    With fewer experts than devices there are E parts, and the expert axis is cut into teams of E
    neighbours, each of which has all experts among its devices.
    """
    return min(num_experts, lax.axis_size(EXPERT))


def num_chunks(expert_shards: int, rows: int) -> int:
    """Into how many chunks the slots are cut, which are exchanged one after another: 1 or 2.

    With two, the experts compute one chunk while the other is on its way; docs/performance.md has
    what that saves. But an expert's weights are read once more, and a gradient is added to theirs,
    which takes longer than it saves with few rows. Both chunks are whole tiles of 8 rows.

    `rows` are G_local * C, the slots of an expert on each device.
    """
    is_worth_it = (
        expert_shards > 1
        and has_async_all_to_all()
        and rows % (2 * SUBLANES) == 0
        and expert_shards * rows >= 2 * MIN_ROWS_OF_CHUNK
    )
    return 2 if is_worth_it else 1


def saved_sum(x: jax.Array) -> jax.Array:
    """A sum over the model axis, which rematerialisation does not repeat either."""
    return checkpoint_name(x, EXCHANGED) if lax.axis_size(MODEL) > 1 else x


def all_to_all(buffers: jax.Array) -> jax.Array:
    """Swaps block i of axis 0 with the device that has shard i of the experts; its own inverse.

    Buffers are [expert shards, E_local, rows, D]. Always axis 0 for axis 0: any other pair of axes
    costs a TPU two transpositions. A TPU keeps rows in eights, and would pad, and send, a number of
    rows that is no multiple of 8. Such blocks are exchanged as rows of 128 numbers, of which there
    are more.
    """
    devices, expert_shards = lax.axis_size(EXPERT), buffers.shape[0]
    if devices == 1:  # named here too, so that the same arrays are saved on every mesh
        return checkpoint_name(buffers, EXCHANGED)
    shape = buffers.shape
    if shape[-2] % SUBLANES and shape[-1] % LANES == 0:
        buffers = buffers.reshape(expert_shards, -1, LANES)
    teams = [
        list(range(first, first + expert_shards)) for first in range(0, devices, expert_shards)
    ]
    exchanged = lax.all_to_all(
        buffers,
        EXPERT,
        split_axis=0,
        concat_axis=0,
        tiled=True,
        axis_index_groups=teams if len(teams) > 1 else None,
    )
    return checkpoint_name(exchanged, EXCHANGED).reshape(shape)
