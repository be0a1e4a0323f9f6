"""Models how long a device waits for collectives that run beside computation."""

from collections.abc import Sequence

from switch_jax.planning.hlo import Operation


def waiting_seconds(
    operations: Sequence[Operation], computing: Sequence[float], exchanging: Sequence[float]
) -> list[float]:
    """Models the seconds that a device waits for each collective, in a run of the program.

    Operations run one after the other, in their order. A collective that the compiler has split
    into a start and a done runs in the background between the two. Those in the background use the
    links one after the other. Any other collective holds the device until its end; it has the links
    for itself, and those in the background end so much later.

    `computing` and `exchanging` are the seconds of each operation; those of a collective in two
    parts are at its start. Returns for each operation the seconds that the device waits for it, and
    for collectives before it on the links: together the time in which it does nothing else.
    """
    now = 0.0
    waits = [0.0] * len(operations)
    under_way: dict[int, tuple[str, float]] = {}  # by index: name of the start, and the end
    for index, operation in enumerate(operations):
        now += computing[index]
        seconds = exchanging[index]
        if operation.started_by or operation.opcode.endswith("-start"):
            if seconds:
                begin = max([now, *(end for _, end in under_way.values())])
                under_way[index] = operation.started_by or operation.name, begin + seconds
        elif operation.opcode.endswith("-done"):
            starts = operation.operand_names
            for of in [of for of, (start, _) in under_way.items() if start in starts]:
                _, end = under_way.pop(of)
                waits[of] = max(0.0, end - now)
                now = max(now, end)
        elif seconds:
            waits[index] = seconds
            for of, (start, end) in under_way.items():
                under_way[of] = start, end + seconds * (end > now)
            now += seconds
    for of, (_, end) in under_way.items():  # the program ends when they have
        waits[of] = max(0.0, end - now)
        now = max(now, end)
    return waits
