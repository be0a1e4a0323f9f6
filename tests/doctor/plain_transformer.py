"""The loss of the doctor's step in NumPy and float64, a row at a time: each row is a group."""

import numpy as np

from switch_jax.model.relative_position_bias import relative_position_bucket

HEADS, EXPERTS, CAPACITY = 8, 8, {"encoder": 10, "decoder": 5}  # 1.25 x 64 / 8, 1.25 x 32 / 8


def loss(parameters, batch):
    """Cross-entropy with z-loss, and the losses of both routers, of the rows of a batch."""
    table = parameters["token_embedding"]["embedding"]
    rows, routers = [], {"encoder": [], "decoder": []}
    for i in range(len(batch["encoder_input_tokens"])):
        row = {name: array[i] for name, array in batch.items()}
        valid = {stack: row[f"{stack}_segment_ids"] != 0 for stack in routers}
        memory = _stack(
            parameters["encoder"], table[row["encoder_input_tokens"]], valid, None, routers
        )
        x = _stack(
            parameters["decoder"], table[row["decoder_input_tokens"]], valid, memory, routers
        )
        logits = x @ table.T / np.sqrt(x.shape[-1])
        normalizer = np.log(np.exp(logits).sum(-1))
        target = logits[np.arange(len(logits)), row["decoder_target_tokens"]]
        rows.append(((normalizer - target + 1e-4 * normalizer**2), row["decoder_loss_weights"]))
    value = sum((a * w).sum() for a, w in rows) / sum(w.sum() for _, w in rows)
    for groups in routers.values():
        real = sum(valid.sum() for *_, valid in groups)
        for logits, probs, valid in groups:
            load = np.bincount(logits.argmax(-1)[valid], minlength=EXPERTS)
            balance = EXPERTS * (load * probs[valid].sum(0)).sum() / valid.sum()
            z = (np.log(np.exp(logits).sum(-1)) ** 2)[valid].sum()
            value += (0.01 * balance + 0.001 * z) / real
    return value


def _stack(p, x, valid, memory, routers):
    """Two layers [L, D] -> [L, D], the second with experts; the decoder's have a memory."""
    stack = "encoder" if memory is None else "decoder"
    own, length = valid[stack], len(x)
    pairs = own[:, None] & own[None, :]
    if memory is not None:
        pairs &= np.tri(length, dtype=bool)
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]  # key minus query
    buckets = np.asarray(relative_position_bucket(distance, 32, 128, memory is None))
    bias = p["relative_position_bias"]["embedding"][buckets]  # [L, L, H]
    for index in range(2):
        layer = {
            name: {key: array[0] for key, array in arrays.items()}
            for name, arrays in p["blocks"][f"layer_{index}"].items()
        }
        y = _norm(x, layer["self_attention_norm"])
        x = x + _attention(layer["self_attention"], y, y, pairs, bias)
        if memory is not None:
            across = own[:, None] & valid["encoder"][None, :]
            y = _norm(x, layer["cross_attention_norm"])
            x = x + _attention(layer["cross_attention"], y, memory, across, 0.0)
        y, weights = _norm(x, layer["feed_forward_norm"]), layer["feed_forward"]
        if index == 0:
            x = x + np.maximum(y @ weights["wi_0"], 0) @ weights["wo"]
        else:
            logits = y @ weights["router"]
            probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            routers[stack].append((logits, probs, own))
            x = x + _experts(y, logits.argmax(-1), probs, weights, own, CAPACITY[stack])
    return _norm(x, p["final_norm"])


def _experts(x, chosen, probs, weights, valid, capacity):
    y, used = np.zeros_like(x), [0] * EXPERTS
    for token in np.flatnonzero(valid):
        expert = chosen[token]
        if used[expert] < capacity:
            hidden = np.maximum(x[token] @ weights["wi_0"][expert], 0)
            y[token] = probs[token, expert] * (hidden @ weights["wo"][expert])
        used[expert] += 1
    return y


def _attention(p, x, memory, pairs, bias):
    """[L, D], [M, D] -> [L, D]; `pairs` [L, M] says who sees whom, who sees none sees all."""
    q, k, v = (
        (y @ p[name]).reshape(len(y), HEADS, -1)
        for y, name in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    scores = np.einsum("lhk,mhk->lmh", q, k) + bias
    sees_none = ~pairs.any(1)[:, None, None]
    scores = np.where(sees_none, 0.0, np.where(pairs[..., None], scores, -np.inf))
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return np.einsum("lmh,mhk->lhk", weights, v).reshape(len(x), -1) @ p["out"]


def _norm(x, p):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]
