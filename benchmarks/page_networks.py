"""The networks that `model=` knows, with paper, settings and size, for docs/models.md."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.page_text import markdown_table, short
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.models.cost import count_parameters
from medseg.models.registry import build_model, model_names

_CONF = Path(__file__).parents[1] / "conf" / "model"
_WIDTHS = (16, 32, 64, 128)
_PATCH_VOX = {2: (128, 128, 1), 3: (48, 48, 48)}
_NUM_INPUTS, _NUM_OUTPUTS = 1, 3
_INTRO = f"""\
`model=NAME` takes one, `model.SETTING=VALUE` changes it. Parameters are those for one channel and
two classes, in a plan of widths {", ".join(map(str, _WIDTHS))} with every axis halved between
levels; a plan of your own may have others. `medseg train` says the number before its first step."""
# `# Title (Authors, venue year): what is special about it.`
_HEADING = re.compile(r"# (?P<title>[^(]+) \((?P<paper>[^)]+\d{4})\)[:,;]? ?(?P<note>.*?)\.?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One row of the list.

    Attributes:
        name: of the registry.
        title, paper, note: as its file in `conf/model` says.
        settings: with their defaults, as `medseg train` takes them.
        num_parameters: at the reference plans, by number of dimensions.
    """

    name: str
    title: str
    paper: str
    note: str
    settings: str
    num_parameters: dict[int, int]


def networks_section() -> str:
    """Return the list of all networks."""
    rows = [
        (
            f"`{one.name}`",
            f"{one.title} ({one.paper})",
            one.note,
            short(one.num_parameters[2]),
            short(one.num_parameters[3]),
            one.settings,
        )
        for one in known_networks()
    ]
    columns = ("`model=`", "network", "in short", "parameters, 2D", "3D", "settings")
    return f"## All networks\n\n{_INTRO}\n\n{markdown_table(columns, rows)}"


def known_networks() -> list[Network]:
    """Read and build every network of our own; those that plugins entered are left out."""
    return [_network(_CONF / f"{name}.yaml") for name in model_names() if _is_ours(name)]


def reference_plan(spatial_dims: Literal[2, 3]) -> Plan:
    """Return the plan whose networks are counted."""
    step, kernel = ((2, 2, 1), (3, 3, 1)) if spatial_dims == 2 else ((2, 2, 2), (3, 3, 3))
    return Plan(
        dataset="reference",
        spatial_dims=spatial_dims,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, None) if spatial_dims == 2 else (1.0, 1.0, 1.0),
        patch_vox=_PATCH_VOX[spatial_dims],
        intensity=(IntensityPlan(channel="image", scheme="zscore"),) * _NUM_INPUTS,
        network=NetworkPlan(
            widths=_WIDTHS,
            strides=(step,) * (len(_WIDTHS) - 1),
            kernels=(kernel,) * len(_WIDTHS),
        ),
        training=TrainingPlan(batch_size=1, num_steps=1),
        device="cpu",
        fingerprint_digest="",
    )


def _is_ours(name: str) -> bool:
    return (_CONF / f"{name}.yaml").exists()


def _network(path: Path) -> Network:
    text = path.read_text()
    found = _HEADING.match(text.splitlines()[0])
    if found is None:
        raise SystemExit(f"{path.name}: its first line names no paper: Title (Authors, year): note")
    settings = yaml.safe_load(text)
    name = settings.pop("name")
    return Network(
        name=name,
        title=found["title"],
        paper=found["paper"],
        note=found["note"],
        settings=", ".join(f"`{key}={_flow(value)}`" for key, value in settings.items()),
        num_parameters={dims: _num_parameters(name, settings, dims) for dims in (2, 3)},
    )


def _num_parameters(name: str, settings: dict[str, Any], spatial_dims: Literal[2, 3]) -> int:
    network = build_model(
        name,
        plan=reference_plan(spatial_dims),
        num_inputs=_NUM_INPUTS,
        num_outputs=_NUM_OUTPUTS,
        settings=settings,
    )
    return count_parameters(network)


def _flow(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
