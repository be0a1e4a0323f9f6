"""A task whose graph is built in a moment: the factbook's lines, read and given back."""

import seqio

from switch_jax.tasks import english

seqio.TaskRegistry.add(
    "tiny_copy",
    source=seqio.TaskRegistry.get("factbook_span_corruption").source,
    preprocessors=[
        seqio.map_over_dataset(lambda line: {"inputs": line, "targets": line}),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ],
    output_features={name: seqio.Feature(english.VOCABULARY) for name in ("inputs", "targets")},
)
