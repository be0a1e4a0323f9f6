"""The tokens that each expert takes of held-out text."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.sparse import coo_array, csr_array

from switch_jax.config import ModelConfig
from switch_jax.data.batch import Batch
from switch_jax.inference.routing import READ, expert_chooser, token_read
from switch_jax.partitioning.placing import put_batch
from switch_jax.tensorflow_setup import seqio

_LISTED = 10  # tokens of an expert that are listed
# How often an expert takes a token that is called typical of it, at least: so many times, and such
# a share of its tokens. Of rarer ones the ratio is chance.
_MIN_COUNT, _MIN_SHARE = 10, 0.001


def count_expert_tokens(
    config: ModelConfig, mesh: Mesh, parameters: Any, batches: Iterable[Batch]
) -> dict[str, list[csr_array]]:
    """How often each expert is chosen for each token; padding does not count.

    These are the router's choices: a token counts once for each of its experts, whether or not
    they have a slot for it.

    Args:
      config: of a Switch model, on this mesh, which is also that of `jax.set_mesh`.
      mesh: the devices.
      parameters: of the model.
      batches: at least one.

    Returns:
      For each stack with experts and each of its routers [E, V] int64, V token ids.
    """
    choose = expert_chooser(config, mesh)
    started = ((batch, choose(parameters, put_batch(batch, mesh))) for batch in batches)
    counts: dict[str, list[csr_array]] = {}
    end: list[Any] = [None]
    # In pairs: the devices have the next batch while this one is counted.
    for (batch, choices), _ in itertools.pairwise(itertools.chain(started, end)):
        chosen = jax.device_get({stack: experts for stack, (experts, _) in choices.items()})
        for stack, (tokens, segments, _) in READ.items():
            if stack not in chosen:
                continue
            is_real = batch[segments] > 0  # [B, L]
            experts = chosen[stack].swapaxes(1, 2)[:, :, is_real]  # [N, k, R], R real tokens
            new = [_count(layer, batch[tokens][is_real], config) for layer in experts]
            known = counts.setdefault(stack, new)
            if known is not new:
                counts[stack] = [a + b for a, b in zip(known, new, strict=True)]
    return counts


def _count(experts: np.ndarray, tokens: np.ndarray, config: ModelConfig) -> csr_array:
    """[k, R] experts of [R] tokens, E for none -> [E, V]."""
    places = experts.ravel(), np.tile(tokens, len(experts))  # [k * R] each
    shape = config.num_experts + 1, config.num_embeddings
    return coo_array((np.ones(experts.size, np.int64), places), shape).tocsr()[:-1]


def expert_records(
    counts: Mapping[str, list[csr_array]],
    routers: Mapping[str, list[tuple[int, str]]],
    vocabularies: Mapping[str, seqio.Vocabulary],
) -> list[dict[str, Any]]:
    """What is written of each expert, see the kind `expert_tokens` in docs/run_folder.md.

    Args:
      counts: from `count_expert_tokens`.
      routers: the layer and the sublayer of each, see `ModelConfig.routers`.
      vocabularies: of 'inputs' and 'targets'.
    """
    return [
        {"stack": stack, "layer": layer, "sublayer": sublayer, "expert": expert, **listed}
        for stack, of_routers in counts.items()
        for (layer, sublayer), of_experts in zip(routers[stack], of_routers, strict=True)
        for expert, listed in enumerate(
            _listed(of_experts, functools.partial(token_read, stack, vocabularies[READ[stack][2]]))
        )
    ]


def _listed(counts: csr_array, name: Callable[[int], str]) -> list[dict[str, Any]]:
    """Of each expert of a layer: its share, its most frequent tokens, and those typical of it."""
    in_all = counts.sum(axis=0)  # [V]
    total = in_all.sum()
    found = []
    for expert in range(counts.shape[0]):
        row = counts[[expert]]
        tokens, taken = row.indices, row.data  # [T] each, T different tokens
        all_taken = max(taken.sum(), 1)
        ratio = (taken / all_taken) / (in_all[tokens] / total)  # [T]
        frequent = np.lexsort((tokens, -taken))[:_LISTED]
        typical = np.lexsort((tokens, -taken, -ratio))
        least = max(_MIN_COUNT, _MIN_SHARE * all_taken)
        is_typical = (taken >= least) & (ratio > 1)  # [T]
        typical = typical[is_typical[typical]][:_LISTED]
        found.append(
            {
                "tokens": int(taken.sum()),
                "share": float(taken.sum() / max(total, 1)),
                "frequent": [name(int(t)) for t in tokens[frequent]],
                "frequent_counts": taken[frequent].tolist(),
                "typical": [name(int(t)) for t in tokens[typical]],
                "typical_ratios": [round(x, 3) for x in ratio[typical].tolist()],
            }
        )
    return found
