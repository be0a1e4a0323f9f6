import pytest

from switch_jax.storage import read_bytes, read_range, repeated_requests
from switch_jax.storage.weather import PATIENCE, Weather
from tests.storage.slow_proxy import Faults


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_silence_is_said_once_and_so_is_its_end(clock, capsys):
    weather = Weather(clock)
    for now in (10.0, 20.0):
        clock.now = now
        weather.late("Cloud Storage: 503")
    said = "Cloud Storage: 503; what fails is tried again, for 20 s at most\n"
    assert capsys.readouterr().err == said
    clock.now = 25.0
    weather.answered()
    weather.answered()
    assert capsys.readouterr().err == "the storage has answered, after 25 s\n"


def test_waits_grow_until_the_patience_ends(clock):
    weather = Weather(clock)
    weather.answered()
    waits = []
    for wait in weather.waiting_times():
        waits.append(wait)
        clock.now += wait
    assert PATIENCE <= sum(waits) <= PATIENCE + 32
    limits = [1, 2, 4, 8, 16, *[32] * (len(waits) - 5)]
    assert weather.patience == 0, "what comes next fails soon"
    weather.answered()
    assert weather.patience == PATIENCE
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))


def test_repeated_requests_of_both_clients_are_counted(bucket_path, faulty_storage, monkeypatch):
    monkeypatch.setattr(Weather, "waiting_times", lambda weather: iter([0.0] * 100))
    (bucket_path / "x.txt").write_bytes(b"0123456789")
    file = bucket_path / "x.txt"
    for ask in (lambda: read_range(str(file), 0, 5), lambda: read_bytes(file)):
        before, faults = repeated_requests(), faulty_storage.num_faults
        faulty_storage.faults = Faults(refused=0.5)
        while faulty_storage.num_faults < faults + 3:
            ask()
        assert repeated_requests() - before == faulty_storage.num_faults - faults
