"""A model in memory that answers lists of texts."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, overload

import jax

from switch_jax.data.catalogue.configured_tasks import vocabularies
from switch_jax.data.packing import Example
from switch_jax.inference.decoding import DecodingConfig
from switch_jax.inference.input_records import Record, check_texts, encode, text_features, text_of
from switch_jax.inference.predictor import Prediction, Predictor
from switch_jax.inference.trained_model import TrainedModel, decoding_config
from switch_jax.model.flops import described
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio


class InteractiveModel:
    """A model with its parameters on the devices; `switch_jax.load` returns one.

        model = switch_jax.load("runs/tuned", batch_size=8)
        model.generate(["Where is Paris?"], num_beams=4)  # as ["In France."]
        model.score(["Where is Paris?"], ["In France."])  # as [-1.25]

    It gives what `switch_jax infer` gives for the same texts and the same batch size.

    Attributes:
      config: of the model; `config.run.batch_size` texts are computed together.
      parameters: nested dict of float32 arrays, on the mesh.
      vocabularies: seqio's, of 'inputs' and 'targets'.
      text_features: how texts become ids, see `input_records.TextFeature`.
      mesh: the devices.
      step: of the checkpoint; None for a model of another format.
    """

    def __init__(self, model: TrainedModel, step: int | None) -> None:
        """Reads the parameters of a step from `TrainedModel.chosen_step`."""
        self.config, self.mesh, self.step = model.config, model.mesh, step
        with jax.set_mesh(model.mesh):
            self.parameters = model.load(step)
        self.vocabularies: dict[str, seqio.Vocabulary] = vocabularies(model.config.data)
        self.text_features = text_features(model.config.data)
        self._name = str(model.source or f"{model.path}, step {step:,}")
        self._predictors: dict[DecodingConfig, Predictor] = {}

    def __repr__(self) -> str:
        """Returns "<InteractiveModel runs/tuned, step 900: Switch Transformer, 8 experts, ...>"."""
        return f"<InteractiveModel {self._name}: {described(self.config.model)}>"

    @overload
    def generate(
        self, inputs: Sequence[str], *, return_scores: Literal[False] = False, **options: Any
    ) -> list[str]: ...

    @overload
    def generate(
        self, inputs: Sequence[str], *, return_scores: Literal[True], **options: Any
    ) -> tuple[list[str], list[float]]: ...

    def generate(
        self, inputs: Sequence[str], *, return_scores: bool = False, **options: Any
    ) -> list[str] | tuple[list[str], list[float]]:
        """The best output for each input; greedy by default.

        Args:
          inputs: texts; one that is longer than the config's lengths is cut off, with a warning. A
            language model goes on with them: of a task without inputs it keeps the end of a text.
          return_scores: return the log-probability of each output, too; a beam search divides it by
            the length penalty.
          options: max_new_tokens, the most tokens of an output, EOS included (by default the
            config's length of targets; half of it, where inputs have no length and share that
            one); num_beams, length_penalty, temperature, top_k, top_p and
            seed, as in `DecodingConfig`. What is sampled for a text depends on its place in the
            list and the seed only.

        A program is compiled for each new combination of options, `seed` included, and kept.

        Returns:
          A text for each input, in their order; with `return_scores` texts and scores.

        Raises:
          UserError: `inputs` is no list of texts, an option is unknown or out of range, or two
            contradict.
        """
        check_texts("inputs", inputs)
        decoding = decoding_config(self.config.data, **options)
        examples = self._encode([{"inputs": text} for text in inputs], decoding.max_new_tokens)
        predicted = self.predict(examples, decoding)
        texts = [
            text_of(prediction.tokens, example, self.text_features)
            for prediction, example in zip(predicted, examples, strict=True)
        ]
        if return_scores:
            return texts, [prediction.score for prediction in predicted]
        return texts

    def score(self, inputs: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The log-probability of each target, EOS included, given its input.

        Args:
          inputs, targets: two lists of the same length; a text that is longer than the config's
            lengths is cut off, with a warning.

        Returns:
          A number for each pair, in nats: the sum over the target's tokens.

        Raises:
          UserError: they are no lists of texts, or not of the same length.
        """
        check_texts("inputs", inputs)
        check_texts("targets", targets)
        if len(inputs) != len(targets):
            raise UserError(
                f"{len(inputs)} inputs and {len(targets)} targets: write a target for each input"
            )
        pairs = zip(inputs, targets, strict=True)
        examples = self._encode([{"inputs": i, "targets": t} for i, t in pairs])
        predictor = self._predictor(decoding_config(self.config.data))
        with jax.set_mesh(self.mesh):
            return list(predictor.score(self.parameters, examples))

    def predict(self, examples: Sequence[Example], decoding: DecodingConfig) -> list[Prediction]:
        """The best output for each example, whose features are int32 [tokens], as ids."""
        with jax.set_mesh(self.mesh):
            return list(self._predictor(decoding).predict(self.parameters, examples))

    def _predictor(self, decoding: DecodingConfig) -> Predictor:
        """Returns the predictor that decodes so, whose programs stay compiled."""
        if decoding not in self._predictors:
            self._predictors[decoding] = Predictor(self.config, self.mesh, decoding)
        return self._predictors[decoding]

    def _encode(self, records: Sequence[Record], max_new_tokens: int = 0) -> list[Example]:
        """Encodes texts; warns of the first one that is cut off, with the number of the others."""
        lengths = self.config.data.task_feature_lengths
        encoded = [encode(record, self.text_features, max_new_tokens) for record in records]
        cut = [(name, i, n) for i, e in enumerate(encoded) for name, n in e.cut.items()]
        if cut:
            name, number, tokens = cut[0]
            others = f", as are {len(cut) - 1} more" if len(cut) > 1 else ""
            warnings.warn(
                f"{name}[{number}] is longer by {tokens} tokens than TASK_FEATURE_LENGTHS = "
                f"{dict(lengths)} allows, and is cut off{others}",
                stacklevel=3,
            )
        return [example.ids for example in encoded]
