"""A limit for gradient norms that follows the norms themselves, as docs/techniques.md shows it."""

from collections import deque
from statistics import median

from univnet.gan import NormLimit


class MedianLimit(NormLimit):
    """Allow ``times`` the median of the last 50 norms."""

    def __init__(self, times: float = 2.0) -> None:
        self.times, self.norms = times, deque(maxlen=50)

    def limit(self, norm):
        """Return it for an update with this norm."""
        self.norms.append(float(norm))
        return self.times * median(self.norms)

    def state_dict(self):
        """Keep the norms in checkpoints, so that a resumed run goes on with them."""
        return {"norms": list(self.norms)}

    def load_state_dict(self, state):
        """Go on with them."""
        self.norms.extend(state["norms"])
