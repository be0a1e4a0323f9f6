from switch_jax.monitoring import Progress


def test_a_loss_is_shown_with_its_own_step_and_the_time_from_there(capsys):
    progress = Progress(total=12, start=0)
    for _ in range(3):  # the devices are one step ahead of the loss
        progress.advance()
    progress.show(2, 7.3262, 1234.5, seconds_per_step=6.0)
    assert capsys.readouterr().out == "step 2/12  loss 7.326  1,234 tokens/s  01:00 left\n"


def test_other_processes_show_nothing(capsys):
    progress = Progress(total=12, start=0, active=False)
    progress.show(2, 7.0, 1.0, 1.0)
    progress.say("a line")
    assert capsys.readouterr().out == ""
