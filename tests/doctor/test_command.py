"""The whole command: on two processes that a launcher starts."""

import json

import pytest

from tests.trainer.worker_processes import TINY, finish, launch, output


@pytest.mark.slow
def test_every_check_passes_on_two_processes(tmp_path):
    folder = tmp_path / "run"
    run = ["launch", "--on=local", "--doctor", f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}"]
    assert finish(launch(1, folder, *run), folder, timeout=500) == [0], output(folder)
    checks = json.loads((tmp_path / "run_doctor.json").read_text())["checks"]
    assert {check["verdict"] for check in checks} <= {"ok", "skipped"}
    assert {"a checkpoint", "input pipeline", "step"} <= {check["name"] for check in checks}
    log = (folder / "logs" / "attempt_1_process_0.log").read_text()
    assert log.endswith("all checks passed\n")
    assert [path.name for path in tmp_path.iterdir() if "_doctor_" in path.name] == []
