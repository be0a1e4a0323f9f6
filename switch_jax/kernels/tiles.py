"""How a TPU lays arrays out in memory: in tiles of 8 rows (sublanes) by 128 numbers (lanes)."""

SUBLANES = 8
LANES = 128


def round_up_to_lanes(n: int) -> int:
    """n rounded up to a multiple of 128."""
    return -(-n // LANES) * LANES
