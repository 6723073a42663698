"""The door to Hydra: composes settings, runs a task, and keeps configs from running code.

Which names may a config hold? A name of our own registries (`model=unet`); a target inside the
short list of modules below; or a module of the user's own, named by `plugins=` on the command
line. Text that came inside a checkpoint, a manifest or a plan is data and is never built from.
"""

import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from medseg.core.errors import EXIT_REFUSED, ConfigError, MedsegError

# Keys whose values are paths or ids: taken literally, whatever characters they hold.
LITERAL_KEYS = frozenset(
    {
        "archive", "cache", "case", "catalogue", "checkpoint", "data_root", "input", "label",
        "label_folder", "manifest", "mlflow.uri", "name", "output", "patient", "plan", "prediction",
        "reference", "scan", "source",
    }
)  # fmt: skip
# Groups whose keys the user names (`images.PET=...`); the first few hold paths or label values.
LITERAL_GROUPS = ("images", "labels", "raters")
OPEN_GROUPS = (*LITERAL_GROUPS, "channels", "columns", "overrides")
# What a first bare word means: `medseg fetch Task04_Hippocampus` is `medseg fetch name=...`.
FIRST_WORD = {"fetch": "name"}
TRUSTED = (
    "monai.networks.nets",
    "monai.losses",
    "monai.transforms",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.nn",
)
# Inside the trusted modules, what reads files or runs code it is given.
FORBIDDEN = re.compile(
    r"(Load|Save|Lambda|Write|Read|Invertd?$|DataStats|SimulateDelay|TorchVision|ITK|ClassesToIndices"
    r"|load|save|hub|serialization|\._)"
)


def run_app(command: str, argv: Sequence[str]) -> int:
    """Compose the settings of a command, run its task, and return the exit code.

    Args:
        command: name of the task module and of its file in `conf/`.
        argv: what followed the command on the line.

    Raises:
        ConfigError: a setting that does not exist, with the nearest one that does.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    codes: list[int] = []

    def job(config: DictConfig) -> None:
        codes.append(_run_task(command, config))

    # Hydra would swallow what it cannot compose and print a page; we name the key instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True)
    line = sys.argv
    sys.argv = [f"medseg-{command}", *map(opened, map(literal, named(command, argv)))]
    try:
        hydra.main(version_base="1.3", config_path="pkg://medseg.conf", config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as fault:
        raise _explain(fault, command) from fault
    finally:
        sys.argv = line
    return max(codes, default=0)


def named(command: str, argv: Sequence[str]) -> list[str]:
    """Give a first bare word the key it stands for, where the command has such a key."""
    first = argv[0] if argv else "-"
    if command not in FIRST_WORD or "=" in first or first[:1] in "-+~":
        return list(argv)
    return [f"{FIRST_WORD[command]}={first}", *argv[1:]]


def literal(word: str) -> str:
    """Quote the value of a path or id key, so that Hydra's grammar takes it as it stands."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    is_literal = name in LITERAL_KEYS or ("." in name and name.split(".")[0] in LITERAL_GROUPS)
    if not equals or not is_literal or value in ("null", ""):
        return word
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return word
    # In Hydra's quoted strings a backslash only counts before a quote (or at the very end).
    text = re.sub(r"(\\*)(')", lambda m: m[1] * 2 + r"\'", value)
    text = re.sub(r"(\\+)$", lambda m: m[1] * 2, text)
    # OmegaConf would take ${...} for an interpolation.
    text = text.replace("${", r"\${")
    return f"{key}='{text}'"


def opened(word: str) -> str:
    """Let a key that the user names enter its group; Hydra adds those only when told with `++`."""
    group, dot, _ = word.partition("=")[0].partition(".")
    return f"++{word}" if dot and group in OPEN_GROUPS else word


def settings(node: Any) -> dict[str, Any]:
    """Return a config node as plain values, interpolations resolved."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    if not isinstance(value, dict):
        raise ConfigError(f"expected a group of settings, found {value!r}")
    return {str(key): entry for key, entry in value.items()}


def require(config: Mapping[str, Any], key: str, what: str) -> Any:
    """Return a setting that has no default.

    Raises:
        ConfigError: it was not given.
    """
    value = config.get(key)
    if value is None or value == "???":
        raise ConfigError(f"{key}= is missing: {what}")
    return value


def build(node: Mapping[str, Any], **given: Any) -> Any:
    """Build the object a node's `_target_` names, adding what exists only at run time.

    Raises:
        ConfigError: a target outside the trusted modules, or arguments it does not take.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    for target in _targets(node):
        require_trusted(target)
    try:
        return instantiate(dict(node), **given)
    except InstantiationException as fault:
        raise ConfigError(f"{node.get('_target_')}: {str(fault).splitlines()[0]}") from fault


def require_trusted(target: str) -> None:
    """Refuse a dotted name that a config may not hold.

    Raises:
        ConfigError: the name lies outside the trusted modules, or reads files or runs code there.
    """
    inside = any(target.startswith(f"{module}.") for module in TRUSTED)
    if not inside or FORBIDDEN.search(target):
        raise ConfigError(
            f"_target_ {target}: a config may only name what lies in {', '.join(TRUSTED)} and "
            "neither reads files nor runs code",
            hint="put your own code in a module and name it with plugins= on the command line",
        )


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's own modules, so that they enter their parts into the registries.

    Raises:
        ConfigError: a module that cannot be imported.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as fault:
            raise ConfigError(f"plugins={module}: {fault}") from fault


def _run_task(command: str, config: Any) -> int:
    """Run a task; a refusal becomes one line and an exit code, so that a sweep goes on."""
    try:
        return int(import_module(f"medseg.tasks.{command}").main(config) or 0)
    except MedsegError as refusal:
        sys.stderr.write(f"medseg {command}: {refusal}\n")
        return EXIT_REFUSED


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, entry in node.items():
            if key == "_target_":
                yield str(entry)
            else:
                yield from _targets(entry)
    elif isinstance(node, list | tuple):
        for entry in node:
            yield from _targets(entry)


def _explain(fault: Exception, command: str) -> ConfigError:
    """Make one line of a composition fault, with the nearest setting that exists."""
    text = " ".join(str(fault).split())
    asked = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if asked:
        key = asked[1] or asked[2]
        near = get_close_matches(key, _known_keys(command), n=1, cutoff=0.5)
        meant = f"; the nearest is {near[0]}" if near else ""
        return ConfigError(f"{key}: no such setting{meant}", hint=f"medseg {command} --help")
    return ConfigError(text, hint=f"medseg {command} --cfg job shows what can be set")


def _known_keys(command: str) -> list[str]:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module("medseg.conf", version_base="1.3"):
        return list(_dotted(settings(compose(config_name=command))))


def _dotted(node: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, entry in node.items():
        yield f"{above}{key}"
        if isinstance(entry, Mapping):
            yield from _dotted(entry, f"{above}{key}.")
