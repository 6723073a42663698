"""A program made by `torch.export` gives the logits of its network, at any size it allows."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_networks import NUM_INPUTS, NUM_OUTPUTS, SHALLOW, make_network, make_plan
from torch import Tensor, nn
from torch.export import Dim, export

from medseg.core.labels import label_set
from medseg.models.checkpoint import Checkpoint, save_checkpoint
from medseg.models.registry import model_names

DOCS = Path(__file__).parents[1] / "docs" / "api.md"
# One that no stride divides, one that all do: a program must not be bound to either.
SIZES = ((33, 21, 18), (32, 32, 32))
# MONAI makes its attention masks with NumPy, from the one size it sees while it is exported.
ONE_SIZE_A_PROGRAM = ("swinunetr",)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are computed faster by one thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def largest_difference(program: nn.Module, network: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((program(x) - network(x)).abs().max())


@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", model_names())
def test_an_exported_program_gives_the_logits_of_the_network_at_two_sizes(name, dims):
    network = make_network(name, make_plan(dims), SHALLOW).eval()
    scans = [torch.randn(1, NUM_INPUTS, *size[:dims]) for size in SIZES]
    if name in ONE_SIZE_A_PROGRAM:
        programs = [export(network, (x,)).module() for x in scans]
    else:
        any_size = dict.fromkeys(range(2, 2 + dims), Dim.DYNAMIC)
        programs = [export(network, (scans[0],), dynamic_shapes=(any_size,)).module()] * 2
    for program, x in zip(programs, scans, strict=True):
        assert largest_difference(program, network, x) <= 1e-4


@pytest.mark.parametrize("dims", [2, 3])
def test_the_lines_of_the_docs_export_a_trained_model_for_any_size(dims, tmp_path, monkeypatch):
    plan = make_plan(dims)
    network = make_network("resunet", plan).eval()
    checkpoint = Checkpoint(
        weights=network.state_dict(),
        plan=plan,
        labels=label_set({f"organ {n}": n for n in range(1, NUM_OUTPUTS)}),
        fingerprint=None,
        model="resunet",
        settings={},
        scores={},
        versions={},
        trained_with={},
    )
    (tmp_path / "runs" / "first").mkdir(parents=True)
    save_checkpoint(checkpoint, tmp_path / "runs" / "first" / "model.pt")
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    lines = next(block for block in blocks if "torch.export" in block)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    program = torch.export.load("model.pt2").module()
    for size in SIZES:
        x = torch.randn(1, NUM_INPUTS, *size[:dims])
        assert largest_difference(program, network, x) <= 1e-4
