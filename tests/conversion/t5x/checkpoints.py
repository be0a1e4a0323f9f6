"""T5X checkpoints for the tests, written as T5X writes them: Flax's msgpack, TensorStore's Zarr."""

import re

import numpy as np
import tensorstore as ts
from flax.serialization import msgpack_serialize

from tests.conversion.folders import TENSORS

STACKS = ("encoder", "decoder")


def t5x_tensors(theirs):
    """Hugging Face's tensors -> T5X's by name, of layers that are not scanned."""
    found, experts = {}, {}
    for name, tensor in theirs.items():
        if name.endswith("embed_tokens.weight"):
            continue
        kernel = tensor.T if tensor.ndim == 2 else tensor
        if name == "shared.weight":
            found["token_embedder/embedding"] = tensor
        elif name == "lm_head.weight":
            found["decoder/logits_dense/kernel"] = kernel
        elif match := re.fullmatch(r"(\w+)\.final_layer_norm\.weight", name):
            found[f"{match[1]}/{match[1]}_norm/scale"] = tensor
        elif match := re.fullmatch(r"(\w+)\.block\.0\..*relative_attention_bias\.weight", name):
            found[f"{match[1]}/relpos_bias/rel_embedding"] = kernel  # [heads, buckets]
        else:
            stack, number, rest = re.fullmatch(r"(\w+)\.block\.(\d+)\.(.*)\.weight", name).groups()
            layer = f"{stack}/layers_{number}"
            if match := re.fullmatch(r"layer.\d.mlp.experts.expert_(\d+).(\w+)", rest):
                kernels = experts.setdefault(f"{layer}/mlp/expert/{match[2]}/kernel", {})
                kernels[int(match[1])] = kernel
            else:
                found[f"{layer}/{_part(stack, rest)}"] = kernel
    stacked = {n: np.stack([kernels[e] for e in sorted(kernels)]) for n, kernels in experts.items()}
    return {name: np.ascontiguousarray(tensor) for name, tensor in (found | stacked).items()}


def _part(stack, rest):
    number, part = re.fullmatch(r"layer\.(\d)\.(.*)", rest).groups()
    feed_forward = str(1 + STACKS.index(stack))  # in the decoder behind cross-attention
    if part == "layer_norm":
        own = "attention" if stack == "encoder" else "self_attention"
        places = {"0": own, feed_forward: "mlp"}
        return f"pre_{places.get(number, 'cross_attention')}_layer_norm/scale"
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    layer, _, leaf = part.partition(".")
    if layer == "SelfAttention":
        return f"{'attention' if stack == 'encoder' else 'self_attention'}/{names[leaf]}/kernel"
    if layer == "EncDecAttention":
        return f"encoder_decoder_attention/{names[leaf]}/kernel"
    return f"mlp/{'router/router_weights/w' if 'router' in leaf else leaf}/kernel"


def scanned(tensors, step, per_layer_bias=False):
    """The same with layers stacked on axis 1, in blocks of `step` where that is not None.

    Args:
      per_layer_bias: as scalable_t5 writes it, the relative bias lies in each layer.
    """
    found, layers = {}, {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(\w+)/layers_(\d+)/(.*)", name)
        if match is None:
            found[name] = tensor
            continue
        stack, number, rest = match[1], int(match[2]), match[3]
        place = "" if step is None else f"subblock_{number % step}/"
        layers.setdefault(f"{stack}/{stack}/{place}{rest}", {})[number] = tensor
    for name, blocks in layers.items():
        found[name] = np.stack([blocks[number] for number in sorted(blocks)], axis=1)
    if per_layer_bias:
        for stack in STACKS:
            bias = found.pop(f"{stack}/relpos_bias/rel_embedding")
            number = found[f"{stack}/{stack}/mlp/wo/kernel"].shape[1]
            stacked = np.stack([bias] * number, axis=1)  # [heads, layers, buckets]
            found[f"{stack}/{stack}/relpos_bias/rel_embedding"] = stacked
    return found


def nested(tensors):
    """{'a/b': x} -> {'a': {'b': x}}"""
    tree = {}
    for name, tensor in tensors.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = tensor
    return tree


def write_checkpoint(folder, tensors, *, layout="inline", version=3, step=7, state=True):
    """Writes a checkpoint.

    Args:
      layout: of matrices: 'inline', 'local' and 'bucket' as T5X writes them, or 'orbax'. Vectors
        are inline, but for 'orbax'.
      version: 3, or 0 without the wrapper.
      step: None: the state does not say it.
      state: whether Adafactor's is there.
    """
    folder.mkdir(parents=True)

    def leaf(name, array):
        if layout == "inline" or (layout != "orbax" and array.ndim < 2):
            return array
        return _write_zarr(folder, name.replace("/", "."), array, layout)

    target = {name: leaf(f"target/{name}", tensor) for name, tensor in tensors.items()}
    content = {"target": nested(target), "state": {}}
    if step is not None:
        content["state"]["step"] = np.int32(step)
    if state:
        moments = {
            f"{n}/v_row": leaf(f"state/param_states/{n}/v_row", t) for n, t in tensors.items()
        }
        content["state"]["param_states"] = nested(moments)
    if layout == "orbax":
        content |= {"flax_mutables": None, "params_axes": None}
    elif version:
        content = {"version": version, "optimizer": content}
    (folder / "checkpoint").write_bytes(msgpack_serialize(content))
    return folder


def _write_zarr(folder, name, array, layout):
    """Writes an array in chunks of halves, and returns what the msgpack file says of it."""
    metadata = {
        "chunks": [size // 2 if size % 2 == 0 else size for size in array.shape],
        "compressor": {"id": "gzip", "level": 1},
        "shape": list(array.shape),
    }
    spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
    local = {"driver": "file", "path": f"{folder / name}/"}
    ts.open({**spec, "kvstore": local}, create=True).result().write(array).result()
    if layout == "orbax":
        return f"PLACEHOLDER://{name}"
    if layout == "bucket":
        return {**spec, "kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket"}, "path": name}
    return {**spec, "kvstore": {"driver": "gfile", "path": f"{name}/"}}


SWITCH = t5x_tensors(TENSORS)
EXPERT = "encoder/layers_1/mlp/expert/wi/kernel"


def tied(tensors):
    return {name: t for name, t in tensors.items() if name != "decoder/logits_dense/kernel"}
