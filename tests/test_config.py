import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from medseg import cli
from medseg import config as module
from medseg.config import (
    FORBIDDEN,
    TRUSTED,
    build,
    load_plugins,
    require,
    run_app,
    trusted_class,
)
from medseg.core.errors import ConfigError
from medseg.runtime.command_line import LITERAL_KEYS, for_hydra, literal, named, options_first

NASTY = [
    "a b", "scan (1).nii.gz", "[a]", "{a}", "a=b", "a==b", "a,b", "a;b", "$HOME", "${x}", "$(rm)",
    "^a^", "#a", "a #b", "it's", "'", "''a", '"', 'a"b', "a\\", "a\\\\", "\\", "\\'", "a\\'b",
    "${oc.env:HOME}", "\\${x}", "\\\\${x}", "${", "a${b", "1e5", "007", "true", "null.nii", "~",
    "~a", "*", "?", "é", "患者", "a\tb", "a\nb", " a", "a ", "-1", "inf", "nan", "a:b", "a|b", "%",
    "@a", "!", "a.b/c", "a'\\\\", "runs:/0/model", "models:/name@alias", "C:\\x\\y", "()", "'a'b'",
]  # fmt: skip


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Settings that a task was called with; the task itself does nothing."""
    seen: list[dict] = []
    for command in ("plan", "predict", "review"):
        task = ModuleType(f"medseg.tasks.{command}")
        task.main = lambda config: seen.append(module.settings(config))
        monkeypatch.setitem(sys.modules, task.__name__, task)
    return seen


@pytest.mark.parametrize(("one", "two"), list(zip(NASTY[::2], NASTY[1::2], strict=True)))
def test_a_path_reaches_the_task_as_it_was_typed(one: str, two: str, ran: list[dict]) -> None:
    assert run_app("plan", [f"manifest={one}", f"output={two}"]) == 0
    assert ran == [{**ran[0], "manifest": one, "output": two}]


@settings(max_examples=300, deadline=None)
@given(
    value=st.text(
        st.sampled_from("\\'\"${}[]()=,;:^# ax\n\té!%&*+-~|<>?") | st.characters(codec="utf-8"),
        min_size=1,
        max_size=12,
    )
)
@example("\\\n")
@example("a\\\\${b}\\")
def test_any_text_survives_hydras_grammar_and_omegaconf(value: str) -> None:
    # Quoted as in Hydra's own grammar, a value is taken as that grammar takes it.
    assume(not (len(value) > 1 and value[0] in "'\"" and value.find(value[0], 1) == len(value) - 1))
    assume(value != "null")
    override = OverridesParser.create().parse_override(literal(f"manifest={value}"))
    node = OmegaConf.create({"manifest": override.value()})
    assert OmegaConf.to_container(node, resolve=True) == {"manifest": value}


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("runs/a", "runs/a"),
        ("[runs/f0,runs/f1]", ["runs/f0", "runs/f1"]),
        ("[runs/ä b=1, models:/liver@best]", ["runs/ä b=1", "models:/liver@best"]),
        ("['runs/a b']", ["runs/a b"]),
        ("'[a]'", "[a]"),
        ("[]", []),
    ],
)
@pytest.mark.parametrize("command", ["predict", "review"])
def test_a_list_of_checkpoints_is_an_ensemble(
    command: str, typed: str, taken: object, ran: list[dict]
) -> None:
    assert run_app(command, [f"checkpoint={typed}"]) == 0
    assert ran[0]["checkpoint"] == taken


def test_null_and_hydras_own_quotes_keep_their_meaning(ran: list[dict]) -> None:
    assert run_app("plan", ["manifest='a b'", "output=null"]) == 0
    assert (ran[0]["manifest"], ran[0]["output"]) == ("a b", None)


def test_other_keys_keep_their_types(ran: list[dict]) -> None:
    line = ["manifest=m", "num_workers=2", "overrides.patch_vox=[64,64,32]", "device=cpu"]
    assert run_app("plan", line) == 0
    assert ran[0]["num_workers"] == 2
    assert ran[0]["overrides"]["patch_vox"] == [64, 64, 32]


def test_only_a_commands_first_bare_word_gets_its_key() -> None:
    assert named("fetch", ["Task04_Hippocampus", "output=x"])[0] == "name=Task04_Hippocampus"
    for line in ([], [""], ["name=a"], ["-m", "a"], ["~name"], ["+name=a"], ["--cfg", "job"]):
        assert named("fetch", line) == line
    assert named("plan", ["a"]) == ["a"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["manifst=3"], "manifst: no such setting; the nearest is manifest;"),
        (["devise=cpu"], "devise: no such setting; the nearest is device;"),
        (["qqqqqq=1"], "qqqqqq: no such setting;"),
        (["manifst=a (1)"], "manifst: no such setting; the nearest is manifest;"),
        (["output.x=a (1)"], "output.x: no such setting"),
        (["device=a (1)"], "device=a (1): expected key=value"),
        (["overrides"], "overrides: expected key=value"),
        (["=3"], "=3: expected key=value"),
        (["num_workers=[1,2"], "num_workers=[1,2: expected key=value"),
        (["~zzz"], "'zzz' does not exist"),
    ],
)
def test_a_line_that_cannot_be_composed_is_one_line_that_names_the_word(
    line: list[str], told: str, ran: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *line]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert ran == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("model.drpout", "model.drpout: no such setting; the nearest is model.dropout;"),
        ("trainig.max_steps", "trainig.max_steps: no such setting; the nearest is training.max_st"),
        # A key is not near another only for standing in the same group.
        ("model.colour", "model.colour: no such setting; medseg train --help"),
    ],
)
def test_the_nearest_key_is_near_in_its_last_name(
    typed: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", f"{typed}=3"]) == 2
    assert told in capsys.readouterr().err


def test_a_choice_that_does_not_exist_is_refused_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "model=unett", "manifest=x"]) == 2
    error = capsys.readouterr().err
    assert "model=unett: no such choice; the nearest is unet; there is" in error
    assert error.count("\n") == 1


def test_an_interpolation_that_leads_nowhere_is_one_line(
    ran: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "manifest=x", "device=${oc.env:NOT_THERE}"]) == 2
    error = capsys.readouterr().err
    assert "NOT_THERE" in error
    assert error.count("\n") == 1
    assert ran == []


def test_a_command_leaves_no_folder_behind_and_the_line_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[dict]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = list(sys.argv)
    for argv in (["manifest=a"], ["manifst=a"], ["--cfg", "job"], ["-m", "manifest=a", "fold=0"]):
        cli.main(["plan", *argv])
    assert list(tmp_path.iterdir()) == []
    assert sys.argv == line
    assert len(ran) == 1


def test_a_sweep_goes_on_after_a_refusal_and_says_so_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def main(config) -> int:
        seen.append(config.num_workers)
        if config.num_workers == 1:
            raise ConfigError("no")
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "medseg.tasks.plan", SimpleNamespace(main=main))
    assert run_app("plan", ["-m", "manifest=a", "num_workers=1,2", "hydra.sweep.dir=."]) == 2
    assert seen == [1, 2]
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second) == (
        "job 0: manifest='a' num_workers=1",
        "job 1: manifest='a' num_workers=2",
    )


REFUSED = [
    "torch.load", "torch.save", "torch.hub.load", "torch.jit.load", "numpy.load",
    "pandas.read_pickle", "os.mkdir", "os.system", "subprocess.run", "builtins.eval",
    "builtins.exec", "pathlib.Path", "pathlib.Path.write_text", "shutil.unpack_archive",
    "urllib.request.urlretrieve", "hydra.utils.get_method", "functools.partial", "pickle.loads",
    "monai.transforms.Lambda", "monai.transforms.Lambdad", "monai.transforms.RandLambda",
    "monai.transforms.LoadImage", "monai.transforms.LoadImaged", "monai.transforms.SaveImage",
    "monai.transforms.SaveImaged", "monai.transforms.WriteFileMapping",
    "monai.transforms.DataStats", "monai.transforms.TorchVision", "monai.transforms.TorchIO",
    "monai.transforms.RandTorchIO", "monai.transforms.CuCIM", "monai.transforms.io.array.LoadImage",
    "monai.transforms.array.np.load", "monai.transforms.Compose.__init__.__globals__",
    "monai.transforms.convert_to_tensor", "monai.bundle.ConfigParser",
    "monai.bundle.config_item.ConfigExpression", "monai.losses.PerceptualLoss",
    "monai.losses.dice.DiceLoss", "monai.networks.nets.TorchVisionFCModel",
    "monai.networks.nets.EfficientNetBN", "monai.networks.nets.MILModel",
    "monai.networks.nets.BertPreTrainedModel", "monai.networks.nets.resnet10",
    "torch.nn.modules.container.Sequential", "torch.nn.modules.module.torch.load",
    "torch.nn.functional.relu", "torch.nn.init.zeros_", "torch.nn.Module.load_state_dict",
    "torch.optim.lr_scheduler.partial", "torch.optim.lr_scheduler.Counter",
    "torch.optim.lr_scheduler.LambdaLR.load_state_dict", "torch.optim.Optimizer.load_state_dict",
    "torch.optim.swa_utils.AveragedModel", "torch.nn", "torch.nn.", ".SGD", "SGD", "", "torch..nn",
    "torch.optim.SGD.", "torch.optim.__builtins__", "torch.optim._functional", "${oc.env:HOME}",
    "torch.optim.SGD;import os", "medseg.runtime.files.write_text",
]  # fmt: skip


@pytest.mark.parametrize("target", REFUSED)
def test_a_target_that_is_no_harmless_class_is_refused_and_nothing_runs(
    target: str, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    hidden = {"_target_": target, "path": str(made)}
    for node in (
        {"_target_": target, "name": str(made), "f": str(made)},
        {"_target_": "torch.nn.Identity", "inner": hidden},
        {"_target_": "torch.nn.Identity", "inner": [{"deep": [hidden]}]},
        OmegaConf.create({"_target_": "torch.nn.Identity", "inner": [hidden]}),
    ):
        with pytest.raises(ConfigError, match="a config may only name classes"):
            build(node)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", [None, 3, ["torch.optim.SGD"], {"a": 1}])
def test_a_target_that_is_no_name_is_refused(target: object) -> None:
    with pytest.raises(ConfigError):
        build({"_target_": target})
    with pytest.raises(ConfigError):
        build({})


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_recursive_", "_convert_", "_mode_"])
def test_keys_that_steer_hydras_own_builder_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} has no meaning"):
        build({"_target_": "torch.nn.Identity", key: True})


def test_text_inside_a_node_is_never_evaluated(tmp_path: Path) -> None:
    evil = "${oc.create:{_target_: pathlib.Path.touch}}"
    with pytest.raises(ConfigError, match=r"torch\.optim\.SGD"):
        build({"_target_": "torch.optim.SGD", "lr": evil}, params=[torch.zeros(1)])
    assert list(tmp_path.iterdir()) == []


def test_trusted_classes_are_built_with_what_exists_at_run_time() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = build({"_target_": "torch.optim.AdamW", "lr": 0.5}, params=[weight])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == 0.5
    step = build(
        {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}, optimizer=optimizer
    )
    assert step.step_size == 3
    layer = build({"_target_": "torch.nn.TransformerEncoder", "num_layers": 1, "encoder_layer": {
        "_target_": "torch.nn.TransformerEncoderLayer", "d_model": 4, "nhead": 2,
        "batch_first": True}})  # fmt: skip
    assert isinstance(layer.layers[0], torch.nn.TransformerEncoderLayer)


def test_wrong_arguments_and_near_names_are_one_line() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'lrr'"):
        build({"_target_": "torch.optim.SGD", "lrr": 1}, params=[torch.zeros(1)])
    with pytest.raises(ConfigError, match="Invalid learning rate: -1"):
        build({"_target_": "torch.optim.SGD", "lr": -1}, params=[torch.zeros(1)])
    with pytest.raises(ConfigError, match=r"the nearest is torch\.optim\.AdamW"):
        trusted_class("torch.optim.AdamWW")


@pytest.mark.slow
def test_every_class_that_a_config_may_name_keeps_the_rule() -> None:
    from importlib import import_module

    allowed = 0
    for home, base in TRUSTED.items():
        expected = getattr(import_module(base.rpartition(".")[0]), base.rpartition(".")[2])
        for name in dir(import_module(home)):
            try:
                kind = trusted_class(f"{home}.{name}")
            except ConfigError:
                continue
            allowed += 1
            assert issubclass(kind, expected)
            assert not FORBIDDEN.search(kind.__name__)
    assert allowed > 500


def test_every_target_in_the_shipped_settings_is_trusted() -> None:
    folder = Path(module.__file__).parents[1] / "conf"
    targets = [
        line.split(":", 1)[1].split("#")[0].strip()
        for file in folder.rglob("*.yaml")
        for line in file.read_text().splitlines()
        if line.strip().startswith("_target_:")
    ]
    assert targets
    for target in targets:
        trusted_class(target)


def test_a_missing_setting_is_named_with_what_it_is() -> None:
    for value in (None, "???"):
        with pytest.raises(ConfigError, match=r"manifest= is missing: what ingest wrote"):
            require({"manifest": value}, "manifest", "what ingest wrote")
    assert require({"fold": 0}, "fold", "") == 0


def test_a_plugin_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("def :\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="plugins=broken_plugin: invalid syntax"):
        load_plugins(["broken_plugin"])
    with pytest.raises(ConfigError, match="plugins=not_there: No module named 'not_there'"):
        load_plugins(["not_there"])


def test_the_literal_keys_are_not_groups_of_choices() -> None:
    folder = Path(module.__file__).parents[1] / "conf"
    assert not LITERAL_KEYS & {path.name for path in folder.iterdir() if path.is_dir()}


def test_options_may_stand_behind_settings():
    words = ["fold=0,1", "-m", "seed=1", "--cfg", "job", "--config-dir", "my conf"]
    expected = ["-m", "--cfg", "job", "--config-dir", "my conf", "fold=0,1", "seed=1"]
    assert options_first(words) == expected


def test_paths_are_swept_over_one_by_one():
    line = ["-m", "manifest=a (1).json, b", "training.init=x,null", "output=a,b", "fold=0,1"]
    assert for_hydra("train", line) == [
        "-m", "manifest='a (1).json','b'", "training.init='x',null", "output='a,b'", "fold=0,1",
    ]  # fmt: skip
    assert for_hydra("train", ["-m", "manifest='a,b'"])[1] == "manifest='a,b'"
    assert for_hydra("train", ["manifest=a,b"]) == ["manifest='a,b'"]


def test_a_path_that_exists_with_its_comma_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").touch()
    assert for_hydra("train", ["-m", "manifest=a,b"]) == ["-m", "manifest='a,b'"]
    long = ",".join(["x" * 200] * 3)
    assert for_hydra("train", ["-m", f"manifest={long}"])[1].count("'") == 6
