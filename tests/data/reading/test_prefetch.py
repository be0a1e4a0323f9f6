import threading
import time

import pytest

from switch_jax.data.reading import prefetch
from switch_jax.data.reading.prefetch import Prefetch
from tests.waiting import HANGS, wait_until


class _Source:
    """Numbers from 0 on, some of which were made; it waits before `waits_at` until it may go on."""

    def __init__(self, waits_at=None):
        self.made, self.waiting, self.go_on = 0, threading.Event(), threading.Event()
        self._waits_at = waits_at

    def __next__(self):
        if self.made == self._waits_at:
            self.waiting.set()
            assert self.go_on.wait(HANGS)
        self.made += 1
        return self.made - 1


def _made(source, count):
    """What was made once there are so many, and some time after."""
    wait_until(lambda: source.made >= count)
    time.sleep(0.05)  # time enough for more
    return source.made


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("error", [StopIteration, OSError, TimeoutError])
def test_items_come_in_their_order_and_then_the_end_or_an_error_for_ever(ahead, error):
    def numbers():
        yield from range(20)
        if error is not StopIteration:
            raise error("the disk is gone")

    items = Prefetch(numbers(), ahead)
    assert [items.get() for _ in range(20)] == list(range(20))
    for _ in range(3):
        assert items.is_ready(HANGS)
        with pytest.raises(error):
            items.get()
    items.close()


@pytest.mark.parametrize("ahead", [1, 5])
def test_no_more_is_made_than_was_allowed_and_none_after_the_end(ahead):
    source = _Source()
    items = Prefetch(source, ahead)
    assert _made(source, ahead) == ahead
    for _ in range(3):
        items.get()
    assert _made(source, ahead + 3) == ahead + 3
    items.close()
    assert _made(source, ahead + 3) == ahead + 3


def test_an_item_that_does_not_come_in_time_may_come_later():
    source = _Source(waits_at=0)
    items = Prefetch(source)
    assert not items.is_ready(0.01)
    source.go_on.set()
    assert items.is_ready(HANGS)
    assert items.get() == 0
    items.close()


def test_close_waits_for_the_item_being_made_and_for_no_other(monkeypatch):
    monkeypatch.setattr(prefetch, "_CLOSING_SECONDS", HANGS)
    source = _Source(waits_at=1)
    items = Prefetch(source)
    assert source.waiting.wait(HANGS)
    closing = threading.Thread(target=items.close)
    closing.start()
    time.sleep(0.1)
    assert closing.is_alive(), "the thread that reads may not be left behind"
    source.go_on.set()
    closing.join()
    assert source.made == 2


def test_close_leaves_an_item_behind_that_is_not_made_in_time(monkeypatch):
    monkeypatch.setattr(prefetch, "_CLOSING_SECONDS", 0.01)
    source = _Source(waits_at=1)
    items = Prefetch(source)
    assert source.waiting.wait(HANGS)
    items.close()
    assert source.made == 1
    source.go_on.set()
