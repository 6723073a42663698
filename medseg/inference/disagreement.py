"""How much the members of an ensemble disagree about a scan: what to annotate next.

Axes: L output, IJK voxel.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch

from medseg.core.errors import ConfigError
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.volume import Volume
from medseg.inference.decision import label_map_of
from medseg.inference.predictor import Predictor
from medseg.metrics.overlap import measure_overlap
from medseg.transforms.chains import PrepareChain

# Keeps the logarithm of a probability of 0 finite.
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """What the members say of one scan.

    Attributes:
        score: mean of `by_class`, 0 (all alike) to 1; 0 where nobody sees anything.
        by_class: per class or region 1 - the mean Dice over pairs of members; NaN where no member
            sees it.
        mutual_information: in bits, mean over the voxels that any member gives to a class; NaN
            where there is none.
    """

    score: float
    by_class: dict[str, float]
    mutual_information: float


def disagreement_on(scan: Volume, ensemble: Predictor) -> Disagreement:
    """Let every member segment a scan, and compare what they say on the plan's grid.

    Pairwise Dice as in committees (Seung et al., COLT 1992); mutual information between label and
    member as in BALD (Houlsby et al., 2011), for deep ensembles (Lakshminarayanan et al., 2017).

    Args:
        scan: with the channels of the plan.
        ensemble: of at least two networks.

    Raises:
        ConfigError: REV-001, a single network, which cannot disagree.
    """
    require_several(ensemble)
    prepared = PrepareChain(ensemble.plan)(scan)
    labels, maps = ensemble.labels, []
    total_p, total_entropy = torch.zeros(()), torch.zeros(())
    for network in ensemble.networks:
        alone = replace(ensemble, networks=(network,))
        p_LIJK = alone.scores(prepared.image_CIJK)[: labels.num_outputs].cpu()
        maps.append(label_map_of(p_LIJK, labels))
        total_p = total_p + p_LIJK
        total_entropy = total_entropy + _entropy(p_LIJK, labels)
    num = len(maps)
    information_IJK = _entropy(total_p / num, labels) - total_entropy / num
    seen_IJK = np.any([one > 0 for one in maps], axis=0)
    by_class = _by_class(maps, labels)
    defined = [value for value in by_class.values() if value == value]
    return Disagreement(
        score=float(np.mean(defined)) if defined else 0.0,
        by_class=by_class,
        mutual_information=float(information_IJK.numpy()[seen_IJK].mean())
        if seen_IJK.any()
        else float("nan"),
    )


def require_several(ensemble: Predictor) -> None:
    """Refuse an ensemble of one.

    Raises:
        ConfigError: REV-001.
    """
    if len(ensemble.networks) < 2:
        raise ConfigError(
            "checkpoint: one network cannot disagree with itself; expected at least two",
            code="REV-001",
            hint="train several folds or seeds, and list their checkpoints",
        )


def _by_class(maps: list[LabelMap], labels: LabelSet) -> dict[str, float]:
    found = {}
    for name, members in labels.targets:
        masks = [np.isin(one, members) for one in maps]
        dice = [measure_overlap(a, b).dice for a, b in combinations(masks, 2)]
        defined = [value for value in dice if value == value]
        found[name] = 1 - float(np.mean(defined)) if defined else float("nan")
    return found


def _entropy(p_LIJK: torch.Tensor, labels: LabelSet) -> torch.Tensor:
    """Return the entropy of each voxel in bits; regions are questions of their own, and add up."""
    bits = -(p_LIJK * p_LIJK.clamp_min(_LEAST).log2())
    if labels.outputs == "regions":
        other = 1 - p_LIJK
        bits = bits - other * other.clamp_min(_LEAST).log2()
    return bits.sum(dim=0)
