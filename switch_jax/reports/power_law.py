"""A power law through the end of a loss curve, by which the curve is continued.

The loss of a language model falls about as a + b step^-c (Kaplan et al. 2020; with the floor a as
in Henighan et al. 2020). The first third of the steps, with the plateau of small models, is left
out.
"""

import dataclasses

import numpy as np
from scipy.optimize import minimize_scalar

_FIRST_PART = 1 / 3  # of the steps, not fitted
_FEWEST = 10  # points of a fit
_EXPONENTS = (0.01, 3.0)


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """loss = a + b (step / 1000)^-c, in nats, through points from `first_step` on."""

    a: float
    b: float
    c: float
    first_step: int

    def loss(self, step: float) -> float:
        return self.a + self.b * (step / 1000) ** -self.c

    def step(self, loss: np.ndarray) -> np.ndarray:
        """The steps at which the law has these losses; infinity where it never does."""
        above = np.maximum(loss - self.a, 0)
        with np.errstate(divide="ignore", over="ignore"):
            return 1000 * (self.b / above) ** (1 / self.c)

    def __str__(self) -> str:
        return f"{self.a:.3f} + {self.b:.3f} (step / 1,000)^-{self.c:.3f}"


def fit(step: np.ndarray, loss: np.ndarray) -> PowerLaw | None:
    """Fits the law by least squares to the points after the first third of the steps.

    The steps [T] ascend; losses [T] that are not finite are left out. None where fewer than ten
    points are left, or they do not fall.
    """
    ok = np.isfinite(loss) & (step >= _FIRST_PART * step[-1:]) & (step > 0)
    x, y = step[ok] / 1000, loss[ok]
    if len(x) < _FEWEST:
        return None

    def solved(c: float) -> tuple[float, np.ndarray]:
        """The sum of squares of the best a and b for an exponent, and these two."""
        basis = np.stack([np.ones_like(x), x**-c], axis=1)  # [T, 2]
        best = np.linalg.lstsq(basis, y)[0]
        return float(((basis @ best - y) ** 2).sum()), best

    c = float(minimize_scalar(lambda c: solved(c)[0], bounds=_EXPONENTS, method="bounded").x)
    a, b = map(float, solved(c)[1])
    return PowerLaw(a, b, c, int(step[ok][0])) if b > 0 else None


def checked_fit(step: np.ndarray, loss: np.ndarray) -> tuple[PowerLaw, float] | None:
    """A fit to a curve, and how far above its last point a fit to its first half is, nats.

    None where one of the two cannot be fitted: a law that cannot be tested is not used.
    """
    half = step <= step[-1:] / 2
    law, earlier = fit(step, loss), fit(step[half], loss[half])
    if law is None or earlier is None:
        return None
    return law, earlier.loss(float(step[-1])) - float(loss[-1])
