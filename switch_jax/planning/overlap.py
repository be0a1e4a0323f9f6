"""Exchanges beside computation: how long a device waits for each of them."""

from collections.abc import Sequence

from switch_jax.planning.hlo import Operation


def waiting_seconds(
    operations: Sequence[Operation], computing: Sequence[float], exchanging: Sequence[float]
) -> list[float]:
    """A model of the seconds that a device waits for each exchange, in a run of the program.

    Operations run one after the other, in their order. An exchange that the compiler has split into
    a start and a done goes on in the background between the two. Those in the background use the
    links one after the other. Any other exchange holds the device until its end; it has the links
    for itself, and those in the background end so much later.

    Args:
      operations: all of the program, in their order.
      computing: seconds that each computes.
      exchanging: seconds that each exchanges, of a pair at its start; 0: it sends nothing.

    Returns:
      For each operation the seconds that the device waits for its exchange.
    """
    now = 0.0
    waits = [0.0] * len(operations)
    under_way: dict[str, tuple[int, float]] = {}  # by name of the start: index, and its end
    for index, operation in enumerate(operations):
        now += computing[index]
        seconds = exchanging[index]
        if operation.started_by or operation.opcode.endswith("-start"):
            if seconds:
                begin = max([now, *(end for _, end in under_way.values())])
                under_way[operation.started_by or operation.name] = index, begin + seconds
        elif operation.opcode.endswith("-done"):
            for name in under_way.keys() & operation.operand_names:
                of, end = under_way.pop(name)
                waits[of] = max(0.0, end - now)
                now = max(now, end)
        elif seconds:
            waits[index] = seconds
            for name, (of, end) in under_way.items():
                under_way[name] = of, end + seconds * (end > now)
            now += seconds
    for of, end in under_way.values():  # the program ends when they have
        waits[of] = max(0.0, end - now)
    return waits
