import pytest

from switch_jax.data import registry
from switch_jax.errors import UserError


def test_an_unknown_name_is_reported_with_similar_ones():
    with pytest.raises(UserError, match="'bible_corruption': did you mean bible_span_corruption"):
        registry.provider("bible_corruption")
    with pytest.raises(UserError, match="'zzz': A task of your own .*`import my_tasks`"):
        registry.provider("zzz")
