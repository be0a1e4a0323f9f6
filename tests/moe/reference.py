"""The one-hot einsum of the original papers: slow, quadratic, and easy to see right."""

import numpy as np


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def assign(logits, capacity, valid, chosen=None, wanted=None):
    """[G, S, E] logits -> combine [G, S, E, C]: the gate at the token's experts and slots, else 0.

    `chosen` are the experts of each token, [G, S] or [G, K, S]; by default the most probable one.
    Choices take slots if they are `wanted`, [G, K, S]; by default all are.
    """
    groups, tokens, experts = logits.shape
    chosen = _with_choices(logits.argmax(-1) if chosen is None else chosen)
    gates = gates_of(softmax(logits), chosen)
    combine = np.zeros((groups, tokens, experts, capacity), logits.dtype)
    for g in range(groups):
        used = [0] * experts
        for k in range(chosen.shape[1]):
            for s in range(tokens):
                if not valid[g, s] or (wanted is not None and not wanted[g, k, s]):
                    continue
                e = chosen[g, k, s]
                if used[e] < capacity:
                    combine[g, s, e, used[e]] = gates[g, s, e]
                used[e] += 1
    return combine


def gates_of(probs, chosen):
    """[G, S, E]: of one choice its probability, of several divided by their sum; else 0."""
    gates = probs * np.eye(probs.shape[-1])[chosen].sum(1)
    return gates if chosen.shape[1] == 1 else gates / (gates.sum(-1, keepdims=True) + 1e-9)


def _with_choices(chosen):
    return chosen[:, None] if chosen.ndim == 2 else chosen


def switch_ffn(x, logits, capacity, valid, wi, wo):
    """[G, S, D] through ReLU experts [E, D, F], [E, F, D] by mask einsums."""
    combine = assign(logits, capacity, valid)
    dispatch = (combine > 0).astype(x.dtype)
    rows = np.einsum("gsd,gsec->gecd", x, dispatch)
    hidden = np.maximum(np.einsum("gecd,edf->gecf", rows, wi), 0)
    return np.einsum("gecd,gsec->gsd", np.einsum("gecf,efd->gecd", hidden, wo), combine)


def loss_and_gradients(
    x,
    weights,
    capacity,
    valid,
    y_weights,
    chosen=None,
    factor=1.0,
    balance=1.0,
    combine=None,
    load=None,
):
    """sum(y * y_weights) + load-balancing loss + z-loss, and its gradients, written out by hand.

    Args:
      x: [G, S, D]; `factor` multiplies it before the router.
      weights: (router, (wi,), wo) of ReLU experts.
      chosen: as for `assign`.
      balance: what multiplies the gradient of the load-balancing loss.
      combine: as `assign` gives it, which is the default.
      load: [G, E], the real tokens of each expert; by default by the first ones of `chosen`.

    Returns:
      The loss, and its gradients by x, router, wi and wo.
    """
    router, (wi,), wo = weights[:3]
    router_input = x * factor
    logits = router_input @ router
    experts = logits.shape[-1]
    chosen = _with_choices(logits.argmax(-1) if chosen is None else chosen)
    probs, normalizer = softmax(logits), np.log(np.exp(logits).sum(-1))
    if combine is None:
        combine = assign(logits, capacity, valid, chosen)
    dispatch = (combine > 0).astype(x.dtype)
    rows = np.einsum("gsd,gsec->gecd", x, dispatch)
    hidden = np.maximum(np.einsum("gecd,edf->gecf", rows, wi), 0)
    outputs = np.einsum("gecf,efd->gecd", hidden, wo)
    y = np.einsum("gecd,gsec->gsd", outputs, combine)

    real, per_group = valid.sum(), np.maximum(valid.sum(1), 1)[:, None]
    if load is None:
        load = (np.eye(experts)[chosen[:, 0]] * valid[..., None]).sum(1)  # [G, E]
    importance = (probs * valid[..., None]).sum(1)  # [G, E]
    balance_loss = (experts * load * importance / per_group).sum() / real
    z_loss = (normalizer**2 * valid).sum() / real
    loss = (y * y_weights).sum() + balance_loss + z_loss

    outputs_grad = np.einsum("gsd,gsec->gecd", y_weights, combine)
    hidden_grad = np.einsum("gecd,efd->gecf", outputs_grad, wo) * (hidden > 0)
    rows_grad = np.einsum("gecf,edf->gecd", hidden_grad, wi)
    gates_grad = np.einsum("gsd,gecd,gsec->gse", y_weights, outputs, dispatch)
    probs_grad = gates_grad
    if chosen.shape[1] > 1:
        is_chosen = np.eye(experts)[chosen].sum(1)
        total = (probs * is_chosen).sum(-1, keepdims=True) + 1e-9
        mean = (gates_grad * gates_of(probs, chosen)).sum(-1, keepdims=True)
        probs_grad = is_chosen * (gates_grad - mean) / total
    probs_grad = (
        probs_grad + balance * valid[..., None] * (experts * load / per_group / real)[:, None]
    )
    logits_grad = probs * (probs_grad - (probs * probs_grad).sum(-1, keepdims=True))
    logits_grad += probs * (2 * normalizer * valid / real)[..., None]
    x_grad = np.einsum("gecd,gsec->gsd", rows_grad, dispatch) + logits_grad @ router.T * factor
    return loss, (
        x_grad,
        np.einsum("gsd,gse->de", router_input, logits_grad),
        np.einsum("gecd,gecf->edf", rows, hidden_grad),
        np.einsum("gecf,gecd->efd", hidden, outputs_grad),
    )
