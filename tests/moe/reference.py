"""The one-hot einsum of the original papers: slow, quadratic, and easy to see right."""

import numpy as np


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def assign(logits, capacity, valid, chosen=None):
    """[G, S, E] logits -> combine [G, S, E, C]: the gate at the token's expert and slot, else 0.

    `chosen` is the expert of each token, [G, S]; by default the most probable one.
    """
    groups, tokens, experts = logits.shape
    chosen = logits.argmax(-1) if chosen is None else chosen
    probs = softmax(logits)
    combine = np.zeros((groups, tokens, experts, capacity), logits.dtype)
    for g in range(groups):
        used = [0] * experts
        for s in range(tokens):
            if not valid[g, s]:
                continue
            e = chosen[g, s]
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


def loss_and_gradients(x, weights, capacity, valid, y_weights, chosen=None, factor=1.0):
    """sum(y * y_weights) + load-balancing loss + z-loss, and its gradients, written out by hand.

    Args:
      x: [G, S, D]; `factor` multiplies it before the router.
      weights: (router, (wi,), wo) of ReLU experts.
      chosen: as for `assign`.

    Returns:
      The loss, and its gradients by x, router, wi and wo.
    """
    router, (wi,), wo = weights
    router_input = x * factor
    logits = router_input @ router
    experts = logits.shape[-1]
    chosen = logits.argmax(-1) if chosen is None else chosen
    probs, normalizer = softmax(logits), np.log(np.exp(logits).sum(-1))
    combine = assign(logits, capacity, valid, chosen)
    dispatch = (combine > 0).astype(x.dtype)
    rows = np.einsum("gsd,gsec->gecd", x, dispatch)
    hidden = np.maximum(np.einsum("gecd,edf->gecf", rows, wi), 0)
    outputs = np.einsum("gecf,efd->gecd", hidden, wo)
    y = np.einsum("gecd,gsec->gsd", outputs, combine)

    real, per_group = valid.sum(), np.maximum(valid.sum(1), 1)[:, None]
    load = (np.eye(experts)[chosen] * valid[..., None]).sum(1)  # [G, E]
    importance = (probs * valid[..., None]).sum(1)  # [G, E]
    balance_loss = (experts * load * importance / per_group).sum() / real
    z_loss = (normalizer**2 * valid).sum() / real
    loss = (y * y_weights).sum() + balance_loss + z_loss

    outputs_grad = np.einsum("gsd,gsec->gecd", y_weights, combine)
    hidden_grad = np.einsum("gecd,efd->gecf", outputs_grad, wo) * (hidden > 0)
    rows_grad = np.einsum("gecf,edf->gecd", hidden_grad, wi)
    probs_grad = np.einsum("gsd,gecd,gsec->gse", y_weights, outputs, dispatch)
    probs_grad += valid[..., None] * (experts * load / per_group / real)[:, None]
    logits_grad = probs * (probs_grad - (probs * probs_grad).sum(-1, keepdims=True))
    logits_grad += probs * (2 * normalizer * valid / real)[..., None]
    x_grad = np.einsum("gecd,gsec->gsd", rows_grad, dispatch) + logits_grad @ router.T * factor
    return loss, (
        x_grad,
        np.einsum("gsd,gse->de", router_input, logits_grad),
        np.einsum("gecd,gecf->edf", rows, hidden_grad),
        np.einsum("gecf,gecd->efd", hidden, outputs_grad),
    )
