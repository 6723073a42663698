"""Hidden blocks: the right share, the same for the same draw, and an error counted there alone."""

import numpy as np
import pytest
import torch

from medseg.core.errors import ConfigError, ManifestError
from medseg.core.geometry import Geometry
from medseg.data.cache import prepare_cases
from medseg.data.case import Case
from medseg.data.image_patches import ImageSampler
from medseg.training.masking import MaskedAugment, Masking, reconstruction_loss
from medseg.transforms.augment import Augment, IntensityAugment
from medseg.transforms.chains import Prepared
from medseg.transforms.motion import SpatialAugment

QUIET = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(16, 24, 8), (16, 24, 1)])
def test_whole_blocks_are_hidden_and_as_many_as_asked_in_every_patch(shape):
    image = torch.randn(3, 2, *shape)
    hidden = Masking(share=0.5, block_vox=8).hidden(image, generator=generator())
    blocks = hidden.unfold(1, 8, 8).unfold(2, 8, 8)
    assert (blocks.flatten(4).float().mean(-1) % 1 == 0).all()
    assert torch.allclose(hidden.flatten(1).float().mean(1), torch.tensor(0.5))
    again = Masking(share=0.5, block_vox=8).hidden(image, generator=generator())
    assert torch.equal(hidden, again)
    other = Masking(share=0.5, block_vox=8).hidden(image, generator=generator(1))
    assert not torch.equal(hidden, other)


def test_a_patch_is_never_hidden_whole_or_shown_whole():
    image = torch.randn(1, 1, 10, 9, 1)
    for share in (0.01, 0.99):
        hidden = Masking(share=share, block_vox=8).hidden(image, generator=generator())
        assert hidden.any()
        assert not hidden.all()


def test_the_network_sees_zeros_where_the_target_shows_the_image():
    augment = Augment(patch_vox=(16, 16, 8), spatial=SpatialAugment(probability=0), intensity=QUIET)
    image, label = torch.randn(2, 1, 16, 16, 8), torch.zeros(2, 16, 16, 8, dtype=torch.int64)
    masked = MaskedAugment(augment=augment, masking=Masking(share=0.25, block_vox=4))
    seen, whole, hidden = masked(image, label, generator=generator())
    assert torch.equal(seen[:, 0][~hidden], whole[:, 0][~hidden])
    assert not seen[:, 0][hidden].any()
    assert whole[:, 0][hidden].any()


def test_the_error_is_counted_where_nothing_was_seen():
    whole, hidden = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 0, 0] = True
    predicted = torch.full((1, 2, 4, 4), 9.0)
    predicted[0, :, 0, 0] = torch.tensor([3.0, 1.0])
    assert reconstruction_loss(predicted, whole, hidden).item() == pytest.approx((9 + 1) / 2)
    assert reconstruction_loss((predicted, predicted[..., ::2]), whole, hidden) == 5


def test_settings_without_meaning_are_refused():
    for given in ({"share": 0.0}, {"share": 1.0}, {"block_vox": 0}):
        with pytest.raises(ConfigError, match=r"training\.pretrain"):
            Masking(**given)


def test_unlabelled_patches_are_a_function_of_the_step_and_miss_no_case(tmp_path):
    cases = [
        Case(case_id=str(n), patient_id=str(n), images={"MR": f"{n}.nii"}, split="unlabelled")
        for n in range(3)
    ]

    def prepare(case: Case) -> Prepared:
        image = torch.full((1, 12, 12, 12), float(case.case_id) + 1)
        return Prepared(image, None, Geometry((12, 12, 12), np.eye(4)))

    cached = prepare_cases(cases, prepare, folder=tmp_path, recipe={"v": 1})
    given = {"patch_vox": (8, 8, 8), "context_vox": (8, 8, 8), "batch_size": 3, "seed": 1}
    sampler = ImageSampler(cases=tuple(cached), **given)
    batch, again = sampler.draw(4), ImageSampler(cases=tuple(cached), **given).draw(4)
    assert torch.equal(batch.image_BCIJK, again.image_BCIJK)
    assert sorted(batch.case_ids) == ["0", "1", "2"]
    assert [image.mean().item() for image in batch.image_BCIJK] == [
        float(name) + 1 for name in batch.case_ids
    ]
    assert not batch.label_BIJK.any()
    with pytest.raises(ManifestError, match="MAN-008"):
        ImageSampler(cases=(), **given)
