"""Models how long a device waits for collectives that run beside computation."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from switch_jax.planning.hlo import TRANSFERS, Operation

# Between slices, a send and a receive are one exchange if they have the same of these.
_RENDEZVOUS = re.compile(r'_xla_host_transfer_rendezvous="([^"]*)"')


class _UnderWay(NamedTuple):
    """A collective in the background: what its end names, its network, and when it is over."""

    start: str
    is_between_slices: bool
    end: float


def waiting_seconds(
    operations: Sequence[Operation],
    computing: Sequence[float],
    exchanging: Sequence[float],
    num_slices: int = 1,
) -> list[float]:
    """Models the seconds that a device waits for each collective, in a run of the program.

    Operations run one after the other, in their order. A collective that the compiler has split
    into a start and a done runs in the background between the two. Those in the background use the
    links one after the other. Any other collective holds the device until its end; it has the links
    for itself, and those in the background end so much later. On several slices, what goes between
    them runs in the background from its send to the end of its receive, over a network of the
    hosts, which the others do not use.

    `computing` and `exchanging` are the seconds of each operation; those of a collective in two
    parts are at its start, or its send. Returns for each operation the seconds that the device
    waits for it, and for collectives before it on its network: together the time in which it does
    nothing else.
    """
    now = 0.0
    waits = [0.0] * len(operations)
    under_way: dict[int, _UnderWay] = {}  # by index of the operation
    received: dict[str, str] = {}  # by name of a receive: where it meets its send
    for index, operation in enumerate(operations):
        now += computing[index]
        seconds = exchanging[index]
        is_transfer = operation.opcode in TRANSFERS
        meeting = _RENDEZVOUS.search(operation.attributes) if is_transfer else None
        is_sent = operation.opcode == "send" and meeting is not None and num_slices > 1
        if operation.opcode == "recv" and meeting:
            received[operation.name] = meeting.group(1)
        elif operation.started_by or operation.opcode.endswith("-start") or is_sent:
            if seconds:
                before = [o.end for o in under_way.values() if o.is_between_slices == is_sent]
                start = meeting.group(1) if meeting else operation.started_by or operation.name
                end = max([now, *before]) + seconds
                under_way[index] = _UnderWay(start, is_sent, end)
        elif operation.opcode.endswith("-done"):
            starts = [received.get(name, name) for name in operation.operand_names]
            for of in [of for of, other in under_way.items() if other.start in starts]:
                end = under_way.pop(of).end
                waits[of] = max(0.0, end - now)
                now = max(now, end)
        elif seconds:
            waits[index] = seconds
            for of, other in under_way.items():
                if other.end > now and not other.is_between_slices:
                    under_way[of] = other._replace(end=other.end + seconds)
            now += seconds
    for of, other in under_way.items():  # the program ends when they have
        waits[of] = max(0.0, other.end - now)
        now = max(now, other.end)
    return waits
