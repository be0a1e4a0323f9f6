"""The tests of tasks register tasks of their own as those of the data do."""

from tests.data.helpers import folders_as_before, register  # noqa: F401
