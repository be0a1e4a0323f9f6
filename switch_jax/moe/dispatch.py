"""Who has which slot, and moving rows from token order to slot order and back.

The gathers of a Switch Transformer have gradients that are gathers too.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.moe.router import RouterSums
from switch_jax.partitioning.collectives import mark_varying
from switch_jax.partitioning.mesh import BATCH, MODEL

# From tokens [B, L, D] to the slots [R, D] of each chunk, see `DispatchIndices`.
Dispatch = Callable[[jax.Array], tuple[jax.Array, ...]]
# From the slots [R, D] of each chunk to tokens [B, L, D], multiplied by their gates and added.
Combine = Callable[[tuple[jax.Array, ...]], jax.Array]


class Assignment(NamedTuple):
    """The routing of every group, where each token has chosen k experts.

    Choice c of token s, both counted from 0, has the number c * S + s. `gate` and `router` are
    differentiable; the gradient of the other fields is 0.

    Attributes:
      expert_index: [G, k, S] int32, the chosen experts, also of dropped tokens and padding.
      gate: [G, k, S] float32, what multiplies the expert's output, see `Distribution.gates`; 0
        where the choice has no slot.
      position_in_expert: [G, k, S] int32, the slot in the expert; C where there is none.
      token_index: [G, E, C] int32, the number of the choice in each slot; k * S where the slot is
        empty. The inverse of `expert_index` and `position_in_expert`.
      router: what the losses and statistics need of it.
      load: [G, E] float32, the number of real tokens whose first choice is the expert, dropped ones
        included.
    """

    expert_index: jax.Array
    gate: jax.Array
    position_in_expert: jax.Array
    token_index: jax.Array
    router: RouterSums
    load: jax.Array

    @property
    def has_no_slot(self) -> jax.Array:
        """[G, S] bool, that the token has no slot in any of its experts; padding has none."""
        capacity = self.token_index.shape[-1]
        return jnp.all(self.position_in_expert == capacity, axis=1)  # [G, S]

    @property
    def num_slots(self) -> jax.Array:
        """[G, S] int32, in how many experts the token has a slot."""
        capacity = self.token_index.shape[-1]
        return jnp.sum(self.position_in_expert < capacity, axis=1, dtype=jnp.int32)  # [G, S]

    @property
    def most_slots(self) -> int:
        """In how many experts a token can have a slot."""
        return self.gate.shape[1]

    def dispatch_and_combine(
        self, batch_shape: tuple[int, int], chunks: int
    ) -> tuple[Dispatch, Combine]:
        """The functions that take tokens [B, L, D] to their slots, in chunks, and back."""
        indices = dispatch_indices(self, batch_shape, chunks)
        # Each device along model multiplies its part of D, and gives a part of the gates' gradient.
        gates = jnp.unstack(mark_varying(self.gate, (MODEL,)), axis=1)  # [G, S] each
        gates = tuple(gate.reshape(batch_shape) for gate in gates)  # [B, L] each
        return partial(dispatch, indices=indices), partial(combine, gates=gates, indices=indices)


class ChosenTokens(NamedTuple):
    """The routing of every group, where each expert has chosen its tokens.

    Attributes:
      token_index: [G, E, C] int32, the token in each slot, the most probable one first; S where the
        slot is empty.
      gate: [G, E, C] float32, the probability of the expert for this token; 0 where the slot is
        empty.
      is_taken: [G, E, S] bool, that the expert took the token.
      router: what the losses and statistics need of it.
      load: [G, E] float32, the number of real tokens divided by E, since all experts take the same
        number. So the load-balancing loss is 1 and its gradient 0.
    """

    token_index: jax.Array
    gate: jax.Array
    is_taken: jax.Array
    router: RouterSums
    load: jax.Array

    @property
    def has_no_slot(self) -> jax.Array:
        """[G, S] bool, that no expert took the token; none takes padding."""
        return ~jnp.any(self.is_taken, axis=1)

    @property
    def num_slots(self) -> jax.Array:
        """[G, S] int32, how many experts took the token."""
        return jnp.sum(self.is_taken, axis=1, dtype=jnp.int32)

    @property
    def most_slots(self) -> int:
        """In how many experts a token can be."""
        return self.token_index.shape[1]

    def dispatch_and_combine(
        self, batch_shape: tuple[int, int], chunks: int
    ) -> tuple[Dispatch, Combine]:
        """As `Assignment.dispatch_and_combine`."""
        groups, _, tokens = self.is_taken.shape
        first_row = tokens * jnp.arange(groups, dtype=jnp.int32)[:, None, None]  # [G, 1, 1]
        is_filled = self.token_index < tokens  # [G, E, C]
        row = jnp.where(is_filled, first_row + self.token_index, groups * tokens)  # [G, E, C]
        gate = mark_varying(self.gate, (MODEL,))  # [G, E, C]
        rows, gates = in_chunks(row, chunks), in_chunks(gate, chunks)  # [R] each
        scatter = partial(scatter_add, gates=gates, rows=rows, batch_shape=batch_shape)
        return partial(gather, rows=rows), scatter


class DispatchIndices(NamedTuple):
    """Row numbers over all groups at once, with the slots in the order [E, G, C].

    The two maps are inverse to each other, where a token has a slot and a slot has a token. Where
    it has none, the row number is one past the last row. The expert is the slowest index, so that
    the rows of one expert lie together for all groups, and the all-to-all moves whole blocks
    without a transposition.

    Each expert's G * C slots may be cut into equal chunks, which are exchanged one after another.
    Chunk i has the i-th part of every expert's slots, R in all, in the order [E, R / E]; the chunks
    follow each other.

    Attributes:
      token_of_slot: for each chunk, [R] int32, row in the flattened [k * B * L] tokens: with k > 1
        choices all tokens follow each other k times.
      slots_of_token: for each choice, [B, L] int32, row in the slots of all chunks.
    """

    token_of_slot: tuple[jax.Array, ...]
    slots_of_token: tuple[jax.Array, ...]


def dispatch_indices(
    assignment: Assignment, batch_shape: tuple[int, int], chunks: int = 1
) -> DispatchIndices:
    """The assignment's maps within each group as maps over all groups; `chunks` divides G * C."""
    groups, experts, capacity = assignment.token_index.shape
    _, choices, tokens = assignment.expert_index.shape  # k, S
    rows = choices * groups * tokens  # k * B * L
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]  # [G, 1]
    number = assignment.token_index  # [G, E, C]
    is_filled = number < choices * tokens  # [G, E, C]
    # Choice c of token s has the number c * S + s in its group, and is row (c * G + g) * S + s.
    row = number + group[..., None] * tokens  # [G, E, C]
    if choices > 1:
        row += number // tokens * ((groups - 1) * tokens)  # [G, E, C]
    token_of_slot = jnp.where(is_filled, row, rows)  # [G, E, C]
    slots_in_chunk = groups * capacity // chunks  # of one expert

    def slot_of_token(expert: jax.Array, slot: jax.Array) -> jax.Array:  # [G, S], [G, S]
        slot_of_expert = group * capacity + slot  # [G, S]
        chunk = slot_of_expert // slots_in_chunk  # [G, S]
        block = chunk * experts + expert  # [G, S]
        slot_of_token = block * slots_in_chunk + slot_of_expert % slots_in_chunk  # [G, S]
        is_kept = slot < capacity  # [G, S]
        slot_of_token = jnp.where(is_kept, slot_of_token, experts * groups * capacity)  # [G, S]
        return slot_of_token.reshape(batch_shape)  # [B, L]

    expert_of_choice = jnp.unstack(assignment.expert_index, axis=1)  # [G, S] each
    slot_of_choice = jnp.unstack(assignment.position_in_expert, axis=1)  # [G, S] each
    return DispatchIndices(
        in_chunks(token_of_slot, chunks),
        tuple(map(slot_of_token, expert_of_choice, slot_of_choice)),
    )


def in_chunks(of_slots: jax.Array, chunks: int) -> tuple[jax.Array, ...]:
    """[G, E, C] -> [R] for each chunk, in the order of `DispatchIndices`."""
    by_expert = of_slots.transpose(1, 0, 2).reshape(of_slots.shape[1], -1)  # [E, G * C]
    return tuple(chunk.reshape(-1) for chunk in jnp.split(by_expert, chunks, axis=1))


def _take_rows(array: jax.Array, index: jax.Array) -> jax.Array:
    """Rows [n, D] of a matrix [rows, D] by index [n]; an index past the end gives the last row."""
    return array.at[index].get(mode="clip", wrap_negative_indices=False)


# Elementwise work is done in the shape [B, L, D], as it is before and after the layer: a TPU's
# compiler does not fuse operations across a reshape, even if the reshape moves nothing.


@jax.custom_vjp
def dispatch(tokens: jax.Array, indices: DispatchIndices) -> tuple[jax.Array, ...]:
    """[B, L, D] tokens -> [R, D] slots of each chunk; an empty slot gets the row of any token.

    What the expert computes for an empty slot is never used: `combine` reads filled slots only, and
    gives empty ones a gradient of 0. Writing zeros would be one more pass over the rows.
    """
    rows = tokens.reshape(-1, tokens.shape[-1])  # [B * L, D]
    token_of_slot = indices.token_of_slot  # [R] each
    if len(indices.slots_of_token) > 1:
        token_of_slot = tuple(index % rows.shape[0] for index in token_of_slot)  # [R] each
    return tuple(_take_rows(rows, index) for index in token_of_slot)  # [R, D] each


def _dispatch_fwd(tokens: jax.Array, indices: DispatchIndices):
    return dispatch(tokens, indices), indices


def _dispatch_bwd(indices: DispatchIndices, chunks_grad: tuple[jax.Array, ...]):
    slots_grad = _join(chunks_grad)  # [E * G * C, D]

    def of_choice(slot_of_token: jax.Array) -> jax.Array:  # [B, L] -> [B, L, D]
        rows = _take_rows(slots_grad, slot_of_token.reshape(-1))  # [B * L, D]
        is_kept = slot_of_token < len(slots_grad)  # [B, L]
        return jnp.where(is_kept[..., None], rows.reshape(*is_kept.shape, -1), 0)  # [B, L, D]

    return reduce(jnp.add, map(of_choice, indices.slots_of_token)), None


dispatch.defvjp(_dispatch_fwd, _dispatch_bwd)


@jax.custom_vjp
def combine(
    chunks: tuple[jax.Array, ...], gates: tuple[jax.Array, ...], indices: DispatchIndices
) -> jax.Array:
    """[R, D] slots of each chunk -> [B, L, D]: outputs times gates (Eq. 2), summed in float32."""
    return _combine_fwd(chunks, gates, indices)[0]


def _combine_fwd(
    chunks: tuple[jax.Array, ...], gates: tuple[jax.Array, ...], indices: DispatchIndices
):
    slots = _join(chunks)  # [E * G * C, D]

    def of_choice(slot_of_token: jax.Array) -> jax.Array:  # [B, L] -> [B, L, D]
        rows = _take_rows(slots, slot_of_token.reshape(-1))  # [B * L, D]
        # Behind a barrier: without it a float32 copy would be kept for the backward pass.
        rows = lax.optimization_barrier(rows)
        return rows.reshape(*slot_of_token.shape, -1)  # [B, L, D]

    outputs = tuple(map(of_choice, indices.slots_of_token))
    y = reduce(jnp.add, map(_times_gate, outputs, gates))  # [B, L, D]
    return y.astype(slots.dtype), (outputs, gates, indices)


def _combine_bwd(residuals, y_grad: jax.Array):
    (outputs, gates, indices), y_grad = lax.optimization_barrier((residuals, y_grad))
    # Multiplied before the gather, in one pass with the sum below; afterwards it would be another
    # pass.
    outputs_grad = jnp.concatenate(
        [
            _times_gate(y_grad, gate).astype(y_grad.dtype).reshape(-1, y_grad.shape[-1])
            for gate in gates
        ]
    )  # [k * B * L, D]
    chunks_grad = tuple(
        jnp.where(
            (index < len(outputs_grad))[:, None],  # the slot is filled
            _take_rows(outputs_grad, index),
            0,
        )
        for index in indices.token_of_slot
    )  # [R, D] each
    gates_grad = tuple(
        jnp.sum(y_grad.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
        for output in outputs
    )  # [B, L] each
    return chunks_grad, gates_grad, None


combine.defvjp(_combine_fwd, _combine_bwd)


def gather(tokens: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """[B, L, D] tokens -> [R, D] slots of each chunk, where experts have chosen.

    `rows` are for each chunk [R] int32, the row in the flattened [B * L] tokens; B * L where the
    slot is empty, which gets zeros.
    """
    tokens = tokens.reshape(-1, tokens.shape[-1])  # [B * L, D]
    return tuple(tokens.at[row].get(mode="fill", fill_value=0) for row in rows)


def scatter_add(
    chunks: tuple[jax.Array, ...],
    gates: tuple[jax.Array, ...],
    rows: tuple[jax.Array, ...],
    batch_shape: tuple[int, int],
) -> jax.Array:
    """[R, D] slots of each chunk -> [B, L, D], where a token may be in any number of slots.

    Outputs times gates, [R] float32 for each chunk, are summed in float32. `rows` are as for
    `gather`.
    """
    batch, length = batch_shape
    y = jnp.zeros((batch * length, chunks[0].shape[-1]), jnp.float32)  # [B * L, D]
    y = mark_varying(y, (*BATCH, MODEL))
    for chunk, gate, row in zip(chunks, gates, rows, strict=True):
        y = y.at[row].add(chunk.astype(jnp.float32) * gate[:, None], mode="drop")  # [B * L, D]
    return y.astype(chunks[0].dtype).reshape(batch, length, -1)


def _join(chunks: tuple[jax.Array, ...]) -> jax.Array:
    """[R, D] slots of each chunk -> [E * G * C, D]."""
    if len(chunks) == 1:
        return chunks[0]
    return jnp.stack(chunks).reshape(-1, chunks[0].shape[-1])  # faster on a TPU than concatenated


def _times_gate(x: jax.Array, gate: jax.Array) -> jax.Array:
    """[B, L, D], [B, L] -> [B, L, D] float32."""
    return x.astype(jnp.float32) * gate[..., None]
