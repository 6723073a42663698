"""Partially annotated scans: what nobody annotated counts as part of the background.

An organ that was not annotated is not background, but its voxels are labelled 0. Its probability
is therefore added to the background's before anything is compared (Fang and Yan, IEEE TMI 2020;
Shi et al., Medical Image Analysis 2021): the sum is right whichever of the two a voxel shows.
"""

import torch
from torch import Tensor

# Far below any logit, so that its probability is 0; finite, so that 0 times it is 0.
_NEVER = -1e9


def merge_unannotated(
    logits_BLIJK: Tensor, label_BIJK: Tensor, annotated_BL: Tensor
) -> tuple[Tensor, Tensor]:
    """Move unannotated classes into the background, in logits and labels.

    Args:
        logits_BLIJK: float32.
        label_BIJK: int64 indices 0..L-1.
        annotated_BL: bool, True where the class was annotated in that scan; the background's own
            entry is not looked at.

    Returns:
        Logits whose background holds log(sum of exp) over itself and the unannotated classes, and
        labels in which those classes are 0.
    """
    kept_BL = annotated_BL.bool().clone()
    kept_BL[:, 0] = False
    kept_BL111 = kept_BL.view(*kept_BL.shape, *[1] * (logits_BLIJK.ndim - 2))
    background_B1IJK = logits_BLIJK.masked_fill(kept_BL111, -torch.inf).logsumexp(1, keepdim=True)
    classes = logits_BLIJK.masked_fill(~kept_BL111, _NEVER)[:, 1:]
    known_BIJK = kept_BL.gather(1, label_BIJK.flatten(1)).view_as(label_BIJK)
    return torch.cat([background_B1IJK, classes], dim=1), torch.where(known_BIJK, label_BIJK, 0)
