"""Export a trained model for serving: a program of jax.export, which runs without switch_jax.

    switch_jax export runs/tuned served                           # greedy decoding
    switch_jax export runs/tuned served_tpu --num_beams=4 --platforms=tpu
    python served/serve.py < questions.txt                        # an answer to each line

TARGET is a new folder: predict.bin, the program that decodes as these flags say;
parameters.safetensors; spiece.model, the tokenizer; settings.json; and serve.py, a script that
needs jax, flatbuffers, safetensors and sentencepiece only. Copy the folder to where it is to run,
and change the script as you like. docs/serving.md says what the program depends on.
"""

import argparse
from shlex import quote

from switch_jax.cli import inference_flags
from switch_jax.cli.convert import progress_bar
from switch_jax.storage import in_bucket, storage_path

# Python runs no script in a bucket. {0}: URL of the folder, {1}: its name.
_COPY = {"gs": "gcloud storage cp -r {0} .", "s3": "aws s3 cp --recursive {0} {1}"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the folder to write, the platforms, and how to decode."""
    inference_flags.add_model_flags(parser)
    parser.add_argument("target", metavar="TARGET", help="the folder to write")
    inference_flags.add_checkpoint_flag(parser)
    parser.add_argument(
        "--platforms",
        default="cpu,cuda,tpu",
        metavar="NAME,NAME",
        help="where the program is to run: cpu, cuda, rocm, tpu; default: %(default)s",
    )


def main(args: argparse.Namespace) -> int:
    """Exports, and says how to use it."""
    target = storage_path(args.target, "TARGET")
    run = inference_flags.read_run(args)

    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed on this machine's accelerator

    from switch_jax.checkpointing import find_checkpoint
    from switch_jax.data.checks import check_vocabularies_of_run, check_vocabulary
    from switch_jax.serving.export import write_folder

    config = run.config
    check_vocabulary(config)
    check_vocabularies_of_run(run.model_dir, config.data)
    decoding = inference_flags.decoding_config(args, config)
    step = inference_flags.checkpoint_step(run.model_dir, args.checkpoint)
    checkpoint = find_checkpoint(run.model_dir, step)
    platforms = [name for name in args.platforms.split(",") if name]
    program = write_folder(target, checkpoint, config, decoding, platforms, progress_bar)
    batches = "batches of any size"
    if program.batch_multiple > 1:
        batches = (
            f"batches of {program.batch_multiple} rows, those of a routing group, or a multiple; "
            "--batch_size=1 makes groups of a row"
        )
    print(f"wrote {args.target}: step {step}, {decoding.describe()}, {args.platforms}; {batches}")
    folder = args.target
    if in_bucket(target):
        folder = target.name
        command = _COPY[str(target).partition(":")[0]]
        print(f"copy it: {command.format(quote(str(target)), quote(folder))}")
    print(f"run it: python {quote(f'{folder}/serve.py')} < questions.txt")
    return 0
