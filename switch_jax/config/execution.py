"""How a model's program is compiled."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, OneOf, Use

REMAT_POLICIES = ("none", "minimal", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionConfig(Checked):
    """How the model's program is compiled: its loops, what it saves, and which kernels it has.

    Attributes:
      scan_layers: compile one block of layers, and run it in a loop over the blocks. False compiles
        each block by itself: the program is faster, since no activation is copied into a stacked
        array and out of it (1.4 times for T5-Base on TPU v5p), but takes longer to compile.
      remat_policy: which activations of a block are saved for the backward pass; the others are
        computed again. 'none' = nothing is computed again; 'minimal' = products with weight
        matrices are saved, but not those of experts where a device has several (on a CPU: and each
        has 64 rows or more); 'full' = only the block's input is saved. With both, the tokens that
        go to the experts and come back, logits of routers that are summed over the mesh's model
        axis, and the results of the TPU's attention kernel are saved too, so that no all-to-all, no
        such sum and no kernel runs twice.
      gpu_attention: on NVIDIA GPUs 'xla' writes the scores of attention to memory, in float32;
        'cudnn' uses cuDNN's fused attention where there is no dropout, in bfloat16. On other
        devices it changes nothing.
    """

    scan_layers: Annotated[bool, Use.TRAINING] = True
    remat_policy: Annotated[str, OneOf(*REMAT_POLICIES), Use.TRAINING] = "none"
    gpu_attention: Annotated[str, OneOf("xla", "cudnn"), Use.TRAINING] = "xla"
