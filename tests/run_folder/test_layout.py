from switch_jax.run_folder import RunFolder


def test_the_steps_of_complete_checkpoints_ascend(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.checkpoint_steps() == []
    for name in ("90", "100", "110.orbax-checkpoint-tmp", "9_copy"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert folder.checkpoint_steps() == [90, 100]


def test_in_a_bucket_a_checkpoint_is_complete_when_its_last_file_is_there(bucket_path):
    folder = RunFolder(bucket_path)
    assert folder.checkpoint_steps() == []
    for step in (90, 100, 110):
        (folder.checkpoint(step) / "state" / "x").write_text("x")
    for step in (90, 100):
        (folder.checkpoint(step) / "commit_success.txt").write_text("")
    assert folder.checkpoint_steps() == [90, 100]
