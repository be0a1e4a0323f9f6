"""The loop of the page makes folders whose runs the report averages."""

import subprocess

from switch_jax.reports.seeds import common_name
from tests.docs.pages import DOCS, blocks


def test_the_loop_trains_each_seed_of_each_value_into_a_folder_of_its_own():
    (loop,) = blocks((DOCS / "compare_settings.md").read_text())
    shell = f'switch_jax() {{ echo "$@"; }}\n{loop}'
    typed = subprocess.run(["bash", "-eu", "-c", shell], capture_output=True, text=True).stdout
    *trained, reported = typed.splitlines()
    folders = [line.partition("MODEL_DIR=runs/rates/")[2].split()[0] for line in trained]
    assert reported == "report runs/rates/* --output=rates.html"
    assert len(set(folders)) == 6
    assert (common_name(folders[:3]), common_name(folders[3:])) == ("rate_0.3", "rate_0.6")
    assert common_name(["dense_seed_1", "dense_seed_12"]) == "dense"
    for line, folder in zip(trained, folders, strict=True):
        rate, seed = folder.removeprefix("rate_").split("_seed_")
        assert f"--gin.LEARNING_RATE={rate} --gin.RANDOM_SEED={seed} " in line
