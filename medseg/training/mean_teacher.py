"""Mean teacher: where nobody labelled, a network should agree with the mean of its past selves.

Tarvainen and Valpola, NeurIPS 2017. The teacher is the running average of weights that a training
keeps anyway (`state.WeightAverage`).

Axes: B patch, C channel, L output, IJK voxel.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medseg.core.errors import ConfigError
from medseg.training.state import TrainingState
from medseg.transforms.augment import Augment, IntensityAugment, vary_intensity

_AS_IT_IS = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTeacher:
    """How much the agreement counts.

    Attributes:
        weight: of the mean squared difference of probabilities, beside the loss; the default is
            that of Yu et al. (MICCAI 2019).
        ramp_up_steps: steps over which the weight rises; a teacher of few steps knows nothing.

    Raises:
        ConfigError: a value without meaning.
    """

    weight: float = 0.1
    ramp_up_steps: int = 400

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf or self.ramp_up_steps < 1:
            raise ConfigError(
                f"training.mean_teacher: weight {self.weight}, ramp_up_steps {self.ramp_up_steps}; "
                "expected above 0, and at least 1"
            )

    def weight_at(self, step: int) -> float:
        """Return the weight at a step, counted from 0: rising as exp(-5 (1 - t)^2)."""
        left = max(0.0, 1 - step / self.ramp_up_steps)
        return self.weight * math.exp(-5 * left**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """The part of a step's loss that needs no labels.

    Attributes:
        settings: how much it counts.
        augment: of the training: patches are moved alike for both, and varied apart.
        num_outputs: classes or regions; channels after them are not compared.
        overlapping: outputs are regions, each with a probability of its own.
        flat: the network is 2D and takes (B, C, I, J).
    """

    settings: MeanTeacher
    augment: Augment
    num_outputs: int
    overlapping: bool
    flat: bool

    def __call__(
        self, state: TrainingState, image_BCIJK: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the weighted mean squared difference of the two sets of probabilities.

        Args:
            state: its network, in training mode and left so; its average is the teacher.
            image_BCIJK: patches that nobody labelled, as cut out.
            generator: on the CPU.
        """
        nothing_BIJK = torch.zeros_like(image_BCIJK[:, 0], dtype=torch.int64)
        moved = replace(self.augment, intensity=_AS_IT_IS)
        image_BCIJK = moved(image_BCIJK, nothing_BIJK, generator=generator)[0]
        views = [self._varied(image_BCIJK, generator) for _ in range(2)]
        # The pupil first, in the mode that the step has chosen layer by layer.
        found = self._probabilities(state.network(views[1]))
        with torch.no_grad():
            network = state.network.eval()
            wanted = self._probabilities(_taught(network, state.average.weights, views[0]))
        state.network.train()
        return self.settings.weight_at(state.step) * (found - wanted).square().mean()

    def _varied(self, image_BCIJK: Tensor, generator: torch.Generator) -> Tensor:
        view = vary_intensity(image_BCIJK, self.augment.intensity, generator=generator)
        return view[..., 0] if self.flat else view

    def _probabilities(self, logits: Tensor | tuple[Tensor, ...]) -> Tensor:
        finest = logits if isinstance(logits, Tensor) else logits[0]
        own = finest[:, : self.num_outputs].float()
        return own.sigmoid() if self.overlapping else own.softmax(dim=1)


def _taught(network: nn.Module, weights: dict[str, Tensor], image_BCIJK: Tensor) -> Tensor:
    """Let a network answer with other weights than its own, which stay what they are."""
    # DynUNet names each of its layers twice: exchanged by both names, it would not come back.
    named = [
        f"{place}.{own}".lstrip(".")
        for place, layer in network.named_modules()
        for own, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
    ]
    once = {name: weights[name] for name in named if name in weights}
    answer: Tensor = functional_call(network, once, (image_BCIJK,), tie_weights=False)
    return answer
