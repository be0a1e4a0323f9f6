"""The one-hot einsum of the original papers: slow, quadratic, and easy to see right."""

import numpy as np


def assign(logits, capacity, valid):
    """[G, S, E] logits -> combine [G, S, E, C]: the gate at the token's expert and slot, else 0."""
    groups, tokens, experts = logits.shape
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probs = shifted / shifted.sum(-1, keepdims=True)
    combine = np.zeros((groups, tokens, experts, capacity), np.float32)
    for g in range(groups):
        used = [0] * experts
        for s in range(tokens):
            if not valid[g, s]:
                continue
            e = int(np.argmax(logits[g, s]))
            if used[e] < capacity:
                combine[g, s, e, used[e]] = probs[g, s, e]
            used[e] += 1
    return combine


def switch_ffn(x, logits, capacity, valid, wi, wo):
    """[G, S, D] through ReLU experts [E, D, F], [E, F, D] by mask einsums."""
    combine = assign(logits, capacity, valid)
    dispatch = (combine > 0).astype(x.dtype)
    rows = np.einsum("gsd,gsec->gecd", x, dispatch)
    hidden = np.maximum(np.einsum("gecd,edf->gecf", rows, wi), 0)
    return np.einsum("gecd,gsec->gsd", np.einsum("gecf,efd->gecd", hidden, wo), combine)
