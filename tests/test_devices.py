"""A GPU gives what a CPU gives, beyond networks: batches, losses, objects."""

import numpy as np
import pytest
import torch
from drawn_objects import rows_of, whole_centre_targets

from medseg.core.objects import Centres, Distances
from medseg.losses.registry import build_loss, loss_names
from medseg.postprocess.centres import group_by_centres
from medseg.training.object_loss import ObjectLoss
from medseg.transforms.augment import Augment, IntensityAugment
from medseg.transforms.motion import SpatialAugment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]
SHAPE, EDGES = (28, 24, 10), (1.0, 1.0, 2.0)


def balls(num=6, shape=SHAPE):
    """Ids of balls in a patch, (1, I, J, K)."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    centres = rng.integers(0, shape, (num, 3))
    distance = np.linalg.norm((grid[..., None, :] - centres) * EDGES, axis=-1)
    return torch.from_numpy(np.where(distance.min(-1) < 6, distance.argmin(-1) + 1, 0))[None]


def test_augmentation_is_the_same_but_for_rounding():
    ids = balls().repeat(6, 1, 1, 1)
    image, rows = torch.randn(6, 2, *SHAPE), rows_of(ids, EDGES)
    augment = Augment(
        patch_vox=(24, 20, 8),
        spatial=SpatialAugment(probability=0.7, spacing=EDGES, mirror_order=(0, 2, 1)),
        intensity=IntensityAugment(noise=0.5, blur=0.5, brightness=0.5, contrast=0.5, gamma=0.5),
        channel_dropout=0.3,
    )

    def done(device):
        generator = torch.Generator().manual_seed(1)
        annotated = torch.tensor([[True, True, False]] * 6).to(device)
        moved = augment(
            image.to(device),
            (ids > 0).long().to(device),
            ids.to(device),
            generator=generator,
            objects_BM5=rows.to(device),
            annotated_BL=annotated,
        )
        return [one.cpu() for one in moved]

    on_cpu, on_gpu = done("cpu"), done("cuda")
    torch.testing.assert_close(on_gpu[0], on_cpu[0], atol=1e-3, rtol=1e-3)
    # A voxel half way between two may fall to either.
    assert all(
        (a != b).float().mean() < 1e-3 for a, b in zip(on_cpu[1:3], on_gpu[1:3], strict=True)
    )
    torch.testing.assert_close(on_gpu[3], on_cpu[3], atol=1e-3, rtol=1e-4)
    assert torch.equal(on_gpu[4], on_cpu[4])


@pytest.mark.parametrize("name", loss_names())
def test_a_loss_and_its_gradient_are_the_same(name):
    logits = torch.randn(2, 4, *SHAPE)
    label = torch.randint(0, 5, (2, *SHAPE))
    annotated = torch.tensor([[True, True, False, True], [True] * 4])

    def done(device):
        loss = build_loss(name, num_outputs=4, ignore_index=4, spacing_mm=EDGES)
        own = logits.to(device).detach().requires_grad_()
        value = loss(own, label.to(device), annotated.to(device))
        torch.autograd.backward(value)
        return value.detach().cpu(), own.grad.cpu()

    (on_cpu, slope), (on_gpu, other) = done("cpu"), done("cuda")
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other, slope, rtol=1e-3, atol=1e-3 * float(slope.abs().max()))


@pytest.mark.parametrize("way", [Centres(), Distances()])
def test_the_loss_of_objects_is_the_same(way):
    ids = balls()
    label, rows = (ids > 0).long(), rows_of(ids, EDGES)
    label[:, :3] = 2
    logits = torch.randn(1, 2 + way.num_channels(3), *SHAPE)

    def done(device):
        loss = ObjectLoss(
            classes=lambda own, *_, **__: own.square().mean(),
            num_classes=2,
            way=way,
            things=(1,),
            edges=EDGES,
            ignore_index=2,
        )
        return loss(logits.to(device), label.to(device), ids.to(device), rows.to(device)).cpu()

    torch.testing.assert_close(done("cuda"), done("cpu"), rtol=1e-4, atol=1e-5)


def test_voxels_are_grouped_by_the_same_centres():
    way, ids = Centres(), balls()
    heat, offset = whole_centre_targets(ids, edges=EDGES, sigma_share=way.sigma_share)
    noise = torch.Generator().manual_seed(0)
    offset = offset[0] / way.unit_vox + 0.02 * torch.randn(offset[0].shape, generator=noise)
    on_cpu, on_gpu = (
        group_by_centres(
            heat[0].to(device), offset.to(device), ids[0].to(device) > 0, way=way, edges=EDGES
        )
        for device in ("cpu", "cuda")
    )
    assert int(on_cpu[0].max()) > 1
    assert torch.equal(on_gpu[0].cpu(), on_cpu[0])
    torch.testing.assert_close(on_gpu[1].cpu(), on_cpu[1])
