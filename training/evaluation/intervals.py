"""How sure a measured share is: confidence intervals in closed form."""

import math

Z95 = 1.959963984540054
"""Standard deviations on either side that hold 95% of a normal distribution."""


def share_interval(count: float, total: int) -> tuple[float, float]:
    """Return the ends of the 95% interval of a share (Wilson 1927), which stays inside 0 and 1."""
    share = count / total
    spread = Z95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
