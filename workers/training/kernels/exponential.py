"""exp() in single precision that the compiler can vectorise, as it cannot the library's."""

from __future__ import annotations

import numpy as np

from workers.training.kernels import compiled_in_order

LOG2_E = np.float32(1.44269504088896341)
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LEAST, MOST = np.float32(-87.33), np.float32(88.37)
C0, C1, C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C3, C4, C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, ZERO, HALF = np.float32(1), np.float32(0), np.float32(0.5)
INFINITY = np.float32(np.inf)


@compiled_in_order  # in another order the reduction of the argument would lose its low part
def exp(x: np.float32) -> np.float32:
    """Computes exp to a unit in the last place; 0 where the result would be subnormal. A scalar.

    Source: the polynomial of Cephes' expf (Moshier, netlib.org/cephes).
    """
    inside = min(max(x, LEAST), MOST)
    n = np.floor(inside * LOG2_E + HALF)
    r = inside - n * LN_2_HIGH - n * LN_2_LOW
    p = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    found = (p * (r * r) + r + ONE) * power
    found = ZERO if x < LEAST else found
    found = INFINITY if x > MOST else found
    return x if x != x else found
