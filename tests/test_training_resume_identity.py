"""What a resumed run is told where it is not the run that was begun."""

from dataclasses import asdict
from pathlib import Path

import pytest

from medseg.core.errors import ConfigError
from medseg.core.regions import Region
from medseg.runtime.files import write_json
from medseg.training.resume import require_same_training

BEGUN = {"seed": 0, "budget": {"max_steps": 400, "max_time_s": None}, "pretrain": None}


def test_only_the_settings_that_changed_are_named(tmp_path: Path) -> None:
    write_json(BEGUN, tmp_path / "training.json")
    require_same_training(tmp_path, BEGUN)
    with pytest.raises(ConfigError, match=r"budget has changed.*: max_steps 400, now 60;") as one:
        require_same_training(tmp_path, {**BEGUN, "budget": {"max_steps": 60, "max_time_s": None}})
    assert "max_time_s" not in str(one.value)
    with pytest.raises(ConfigError, match=r"pretrain has changed.*: None, now \{'share': 0.6\}"):
        require_same_training(tmp_path, {**BEGUN, "pretrain": {"share": 0.6}})


def test_what_an_earlier_medseg_did_not_store_may_be_anything(tmp_path: Path) -> None:
    write_json({"seed": 0}, tmp_path / "training.json")
    require_same_training(tmp_path, BEGUN)


@pytest.mark.parametrize("regions", [(), [asdict(Region(name="WT", members=("edema", "core")))]])
def test_a_run_with_regions_goes_on_with_the_same_ones(tmp_path: Path, regions: object) -> None:
    write_json({**BEGUN, "regions": regions}, tmp_path / "training.json")
    require_same_training(tmp_path, {**BEGUN, "regions": regions})
    with pytest.raises(ConfigError, match="regions has changed"):
        require_same_training(tmp_path, {**BEGUN, "regions": None})
