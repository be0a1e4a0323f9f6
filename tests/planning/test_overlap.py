import dataclasses

import pytest

from switch_jax.planning.hlo import Operation
from switch_jax.planning.overlap import waiting_seconds


def op(name, opcode, operands=""):
    return Operation(name, opcode, "f32[8]", f"({operands}), channel_id=1", 1, 0, "")


def waits(*timed, **options):
    """`timed`: operations with the seconds that they compute and exchange."""
    return waiting_seconds(*zip(*timed, strict=True), **options)


A = op("a-start", "all-to-all-start", "%x")
A_DONE = op("a-done", "all-to-all-done", "%a-start")
B, B_DONE = op("b-start", "all-reduce-start", "%y"), op("b-done", "all-reduce-done", "%b-start")
NOW = op("c", "all-gather", "%z")
WORK = op("fusion", "fusion", "%x")


def test_another_core_exchanges_in_the_background():
    start, done = op("s", "call-start", "%x"), op("s-done", "call-done", "%s")
    inner = dataclasses.replace(op("inner", "all-reduce", "%p"), started_by="s")
    found = waits((start, 0.0, 0.0), (inner, 0.0, 10.0), (WORK, 4.0, 0.0), (done, 0.0, 0.0))
    assert found == [0.0, 6.0, 0.0, 0.0]
    found = waits((start, 0.0, 0.0), (inner, 0.0, 10.0), (inner, 0.0, 2.0), (done, 0.0, 0.0))
    assert found == [0.0, 10.0, 2.0, 0.0]


@pytest.mark.parametrize(("computing", "waiting"), [(0.0, 10.0), (4.0, 6.0), (11.0, 0.0)])
def test_a_split_one_is_waited_for_at_its_end(computing, waiting):
    assert waits((A, 0.0, 10.0), (WORK, computing, 0.0), (A_DONE, 0.0, 0.0)) == [waiting, 0.0, 0.0]


def test_two_at_a_time_share_the_links_and_one_that_is_not_split_holds_the_device():
    # `a` ends at 10, `b` begins then and ends at 15; the device is at 7 when it needs `a`.
    found = waits(
        (A, 0.0, 10.0), (WORK, 4.0, 0.0), (B, 0.0, 5.0), (WORK, 3.0, 0.0), (A_DONE, 0.0, 0.0),
        (B_DONE, 0.0, 0.0), (NOW, 0.0, 2.0),
    )  # fmt: skip
    assert found == [3.0, 0.0, 5.0, 0.0, 0.0, 0.0, 2.0]


def test_one_that_is_not_split_delays_those_under_way_but_none_that_has_ended():
    # `c` has the links from 2 to 3, so `a` ends at 11; the device is at 3 when it needs it.
    found = waits((A, 0.0, 10.0), (WORK, 2.0, 0.0), (NOW, 0.0, 1.0), (A_DONE, 0.0, 0.0))
    assert found == [8.0, 0.0, 1.0, 0.0]
    found = waits((A, 0.0, 10.0), (WORK, 20.0, 0.0), (NOW, 0.0, 1.0), (A_DONE, 0.0, 0.0))
    assert found == [0.0, 0.0, 1.0, 0.0]


def test_the_program_ends_when_its_exchanges_have():
    assert waits((A, 0.0, 10.0), (WORK, 2.0, 0.0)) == [8.0, 0.0]


def test_between_slices_a_send_runs_until_its_receive_ends_on_a_network_of_its_own():
    def part(name, opcode, operands, meeting=""):
        attributes = (
            f'({operands}), frontend_attributes={{_xla_host_transfer_rendezvous="{meeting}"}}'
        )
        return dataclasses.replace(op(name, opcode, operands), attributes=attributes)

    send, receive = part("send.1", "send", "%x", "r_0"), part("recv.1", "recv", "%token", "r_0")
    sent, done = op("send-done.1", "send-done", "%send.1"), op("rd", "recv-done", "%recv.1")
    # Sent at 0, there at 10. The all-to-all has the chips' links from 0 to 5; `c` holds the device
    # from 4 to 6 and delays the all-to-all to 7, but not what goes between slices.
    timed = [
        (send, 0.0, 10.0), (receive, 0.0, 0.0), (sent, 0.0, 0.0), (A, 0.0, 5.0), (WORK, 4.0, 0.0),
        (NOW, 0.0, 2.0), (A_DONE, 0.0, 0.0), (done, 0.0, 0.0),
    ]  # fmt: skip
    assert waits(*timed, num_slices=2) == [3.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0]
    # The same program on one slice, where it has no network of its own, holds the device.
    assert waits(*timed) == [10.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0]
    # A second one follows the first.
    second = part("send.2", "send", "%y", "r_1")
    timed = (send, 0.0, 10.0), (second, 0.0, 5.0), (WORK, 12.0, 0.0)
    assert waits(*timed, num_slices=2) == [0.0, 3.0, 0.0]
