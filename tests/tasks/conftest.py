"""The tests of tasks register tasks of their own as those of the data do."""

from tests.data.helpers import register  # noqa: F401
