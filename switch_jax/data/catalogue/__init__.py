"""Tasks and vocabularies by their names, and what `switch_jax tasks` does with them."""
