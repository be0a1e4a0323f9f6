import threading
import time

import pytest

from switch_jax.data.prefetch import Prefetch


class _Source:
    """Numbers from 0 on; counts what it was asked for, and waits or fails where it is asked to."""

    def __init__(self, length, fails_at=None, waits_at=None):
        self.made = 0
        self.waiting, self.go_on = threading.Event(), threading.Event()
        self._length, self._fails_at, self._waits_at = length, fails_at, waits_at

    def __iter__(self):
        return self

    def __next__(self):
        if self.made == self._fails_at:
            raise OSError("the disk is gone")
        if self.made == self._waits_at:
            self.waiting.set()
            assert self.go_on.wait(10)
        if self.made == self._length:
            raise StopIteration
        self.made += 1
        return self.made - 1


def _until_it_rests(source):
    """What was made once the thread makes no more."""
    made = -1
    while made != source.made:
        made = source.made
        time.sleep(0.1)
    return made


def _alive():
    return [t for t in threading.enumerate() if t.name == "data"]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_all_items_come_in_their_order_and_then_the_end_for_ever(ahead):
    items = Prefetch(_Source(20), ahead)
    assert [next(items) for _ in range(20)] == list(range(20))
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(items)
    items.close()
    assert not _alive()


def test_an_error_comes_in_the_place_of_its_item_and_again_afterwards():
    items = Prefetch(_Source(20, fails_at=3), ahead=8)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    for _ in range(3):
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)
    items.close()
    assert not _alive()


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_is_read_than_fits_and_one(ahead):
    source = _Source(1000)
    items = Prefetch(source, ahead)
    assert _until_it_rests(source) == ahead + 1
    for _ in range(3):
        next(items)
    assert _until_it_rests(source) == ahead + 1 + 3
    items.close()


def test_close_ends_a_thread_that_waits_for_room():
    source = _Source(1000)
    items = Prefetch(source)
    made = _until_it_rests(source)
    items.close()
    assert not _alive()
    assert source.made <= made + 1, "it should not go on to read"


def test_close_waits_for_the_item_being_made_and_for_no_other():
    source = _Source(1000, waits_at=1)
    items = Prefetch(source)
    assert source.waiting.wait(10)
    closing = threading.Thread(target=items.close)
    closing.start()
    time.sleep(0.1)
    assert closing.is_alive(), "the thread that reads may not be left behind"
    source.go_on.set()
    closing.join(10)
    assert not closing.is_alive() and not _alive()
    assert source.made == 2
