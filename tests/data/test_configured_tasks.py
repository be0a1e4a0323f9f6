from switch_jax.config import DataConfig
from switch_jax.data.configured_tasks import vocabulary_size


def test_vocabulary_size_counts_the_sentinels():
    english = DataConfig("english_span_corruption", {"inputs": 128, "targets": 32})
    toy = DataConfig("toy_pairs", {"inputs": 10, "targets": 7})
    assert vocabulary_size(english) == 1000 + 100
    assert vocabulary_size(toy) == 10
