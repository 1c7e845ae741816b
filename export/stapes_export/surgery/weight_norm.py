"""A weight kept as direction and length becomes the plain weight.   W = g v / |v|"""

from torch import nn
from torch.nn.utils import parametrize


def fold_weight_norm(model: nn.Module) -> None:
    """Fold every parametrization of `model` in place. The module must not be needed unfolded afterwards: a deep copy shares state."""
    for module in model.modules():
        for name in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, name)
