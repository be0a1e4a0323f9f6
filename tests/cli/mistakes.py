from switch_jax.cli import main


def refused(capsys, *arguments) -> str:
    """Runs a command, which must exit with 2 and print one line; returns the line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse's own errors
        code = end.code
    printed = capsys.readouterr()
    # A plan also says what it compiles.
    lines = [line for line in printed.err.splitlines() if not line.startswith("compil")]
    assert (code, printed.out, len(lines)) == (2, "", 1), printed
    return lines[0]
