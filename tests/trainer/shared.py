"""Results of functions of a config, shared by all configs of which a function reads the same."""

import copy

from switch_jax.config import PARTS

WHOLE = ("model", "mesh")  # the program depends on all of these
READ = [part for part in PARTS if part not in WHOLE]


class _Noting:
    """A part of a config; notes what is read of it."""

    def __init__(self, part):
        self._part = part
        self.noted = {}

    def __getattr__(self, name):
        self.noted[name] = getattr(self._part, name)
        return self.noted[name]


class Shared:
    """Calls functions of a config once for each of its values that they read, and of a key.

    A field that a function begins to read tells configs apart from then on: nobody lists it.
    """

    def __init__(self):
        self._made = {}  # what was read, and the result, by key

    def get(self, function, config, *arguments, key):
        """`function(config, *arguments)`, which depends on the key and the config alone."""
        key = repr((function, [getattr(config, part) for part in WHOLE], config.teacher_model, key))
        made = self._made.setdefault(key, [])
        for noted, result in made:
            if all(getattr(getattr(config, part), name) == v for part, name, v in noted):
                return result
        noting = copy.copy(config)
        parts = {part: _Noting(getattr(config, part)) for part in READ}
        for part, values in parts.items():
            object.__setattr__(noting, part, values)
        result = function(noting, *arguments)
        made.append((
            [(part, name, v) for part, values in parts.items() for name, v in values.noted.items()],
            result,
        ))  # fmt: skip
        return result
