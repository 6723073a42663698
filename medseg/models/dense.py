"""An encoder and a head: the frame that FCN, DeepLab and PSPNet share."""

from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.encoder import Encoder, Style
from medseg.models.padding import PaddedNetwork
from medseg.models.resize import enlarge

# Share of features dropped before the auxiliary head's logits, as in the reference implementations.
_AUXILIARY_DROPOUT = 0.1


class DenseNetwork(nn.Module):
    """A residual encoder, a head on its features, and logits enlarged to the input's size.

    With the plan's `deep_supervision`, a second head on the third stage is trained beside the
    first (Zhao et al., CVPR 2017); prediction does without it.

    Args:
        encoder: gives the features of four stages.
        head: from those features, the shallowest first, to logits of any resolution.
        auxiliary: from the third stage's features to logits; None for a network with one head.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, auxiliary: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits of the input's size; while training also the auxiliary ones, coarser."""
        features = self.encoder(x)
        logits = enlarge(self.head(features), x.shape[2:])
        if self.training and self.auxiliary is not None:
            return logits, self.auxiliary(features[2])
        return logits


class LastStage(nn.Module):
    """A head that sees the deepest stage alone.

    Args:
        body: from that stage's features to logits.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits at the deepest stage's resolution."""
        logits: Tensor = self.body(features[-1])
        return logits


def dense_network(plan: Plan, *, encoder: Encoder, head: nn.Module, num_outputs: int) -> nn.Module:
    """Put encoder and head together, with the auxiliary head that the plan asks for.

    The input is padded to what the encoder's strides need, which are not always the plan's.
    """
    auxiliary = None
    if plan.network.deep_supervision:
        auxiliary = fully_convolutional(
            encoder.style, encoder.widths[2], num_outputs, dropout=_AUXILIARY_DROPOUT
        )
    return PaddedNetwork(DenseNetwork(encoder, head, auxiliary), multiple=encoder.stride)


def fully_convolutional(
    style: Style, num_inputs: int, num_outputs: int, *, dropout: float
) -> nn.Sequential:
    """Return the head of FCN: a convolution to a quarter of the features, then the logits."""
    return nn.Sequential(
        style.unit(num_inputs, num_inputs // 4),
        nn.Dropout(dropout),
        style.score(num_inputs // 4, num_outputs),
    )
