"""Which last state a weighted sum over the layers takes, in encoders that end in a layer norm of their own.

Until transformers 4 it was the state behind that norm, and checkpoints were trained so; transformers 5 takes the one before it.
"""

from typing import Any, Literal

LayerSum = Literal["v4", "v5"]


def differs(config: Any) -> bool:
    """Whether the two definitions give different answers for this architecture."""
    return bool(getattr(config, "use_weighted_layer_sum", False) and getattr(config, "do_stable_layer_norm", False))
