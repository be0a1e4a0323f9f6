"""`python -m switch_jax` is `switch_jax`."""

import sys

from switch_jax.cli import main

sys.exit(main())
