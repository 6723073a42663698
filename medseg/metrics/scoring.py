"""How cases are scored and summarised: tolerances and intervals, checked at birth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose

from medseg.core.errors import ConfigError
from medseg.metrics.objects import THRESHOLDS, percent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How cases are scored and summarised.

    Attributes:
        surface_tolerance_mm: of surface Dice, pixels on grids without physical size; None: what
            suits each grid (`metrics.surface.default_tolerance_mm`).
        class_tolerance_mm: tolerances of the classes and regions that have their own.
        level: of the bootstrap intervals.
        seed: of their draws.
        iou_thresholds: at which objects are matched.

    Raises:
        ConfigError: a value without sense.
    """

    surface_tolerance_mm: float | None = None
    class_tolerance_mm: Mapping[str, float] = field(default_factory=dict)
    level: float = 0.95
    seed: int = 0
    iou_thresholds: tuple[float, ...] = THRESHOLDS

    def __post_init__(self) -> None:
        tolerances = dict(self.class_tolerance_mm)
        if self.surface_tolerance_mm is not None:
            tolerances["surface_tolerance_mm"] = self.surface_tolerance_mm
        for name, tolerance in tolerances.items():
            if not (_is_number(tolerance) and tolerance >= 0):
                raise ConfigError(f"{name}={tolerance}: expected a tolerance of 0 or more")
        if not (_is_number(self.level) and 0 < self.level < 1):
            raise ConfigError(f"level={self.level}: expected a share between 0 and 1")
        require_count("seed", self.seed)
        if not all(_is_threshold(one) for one in self.iou_thresholds):
            raise ConfigError(
                f"iou_thresholds={list(self.iou_thresholds)}: expected hundredths between 0 and 1"
            )


def require_count(name: str, value: object) -> None:
    """Refuse what is no whole number from 0 on: settings come from a command line.

    Raises:
        ConfigError: naming the setting.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{name}={value}: expected a whole number of 0 or more")


def _is_threshold(value: object) -> bool:
    """Tell whether a column can be named after a threshold: 0.55 is 55."""
    if not isinstance(value, float):
        return False
    return 0 < value < 1 and isclose(100 * value, percent_of(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
