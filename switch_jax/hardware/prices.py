"""What chips cost; the price of one is the user's, since it depends on place, kind and contract."""

import math

from switch_jax.utils.errors import UserError


def check_price(price_per_chip_hour: float | None) -> None:
    """Raises UserError if it can be no price of a chip's hour in USD; None is none."""
    if price_per_chip_hour is not None and not 0 <= price_per_chip_hour < math.inf:
        raise UserError(
            f"--price_per_chip_hour={price_per_chip_hour}: write a price in USD, 0 or more"
        )


def usd(amount: float) -> str:
    """Writes an amount: 1234.5 -> "1,234.50 USD"."""
    return f"{amount:,.2f} USD"
