import pytest

from tests.reports.by_hand import findings, seed


@pytest.fixture
def study():
    """Dense with two seeds, 2 and 4 experts of the same FLOPs, and a larger dense model."""
    runs = [
        seed(0, "dense", 0, [(100, -4.0), (200, -3.0)], parameters=100, flops_per_token=1.0),
        seed(1, "dense", 0, [(100, -4.5), (200, -3.5)], parameters=100, flops_per_token=1.0),
        seed(0, "two", 2, [(100, -3.5), (200, -2.5)], parameters=200, flops_per_token=1.0),
        seed(0, "four", 4, [(100, -3.25)], parameters=400, flops_per_token=1.0),
        seed(0, "large", 0, [(100, -3.0), (200, -2.0)], parameters=350, flops_per_token=3.5),
    ]
    return findings(*runs)
