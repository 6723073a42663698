"""The door to Hydra: composes settings, runs a task, and keeps configs from running code.

Which names may a config hold? A name of our own registries (`model=unet`); a target inside the
short list of modules below; or a module of the user's own, named by `plugins=` on the command
line. Text that came inside a checkpoint, a manifest or a plan is data and is never built from.
"""

import inspect
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from medseg.core.errors import EXIT_REFUSED, ConfigError, MedsegError
from medseg.runtime.command_help import help_explained
from medseg.runtime.command_line import for_hydra

# Where a `_target_` may lie, and what a class there must be: nothing but a public class of exactly
# these modules, so no function and no path through them to another module.
TRUSTED = {
    "monai.losses": "torch.nn.Module",
    "monai.networks.nets": "torch.nn.Module",
    "monai.transforms": "monai.transforms.Transform",
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torch.optim.lr_scheduler": "torch.optim.lr_scheduler.LRScheduler",
}
# Classes there that read or write files, run what they are given, or hand over to other libraries.
FORBIDDEN = re.compile(
    "^_|Load|Save|Read|Write|Lambda|DataStats|SimulateDelay|TorchVision|TorchIO|CuCIM|ITK"
    "|Bert|Transchex|MultiModal"
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
        _say_which()
        codes.append(_run_task(command, config))

    # Hydra would swallow what it cannot compose and print a page; we name the key instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if nameless := [word for word in argv if word.startswith("=")]:
        raise ConfigError(f"{nameless[0]}: expected key=value", code="CFG-004")
    # One token a process: every job of a sweep must name the same sweep folder.
    token = secrets.token_hex(3)
    OmegaConf.register_new_resolver("unique", lambda: token, replace=True)
    OmegaConf.register_new_resolver("either", lambda one, other: one or other, replace=True)
    line = sys.argv
    sys.argv = ["medseg", *for_hydra(command, argv)]
    try:
        with help_explained(command, argv):
            hydra.main(version_base="1.3", config_path="pkg://medseg.conf", config_name=command)(
                job
            )()
    except (HydraException, OmegaConfBaseException) as fault:
        raise _explain(fault, command) from fault
    finally:
        sys.argv = line
    return max(codes, default=0)


def settings(node: Any) -> dict[str, Any]:
    """Return a config node as plain values, interpolations resolved."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    if not isinstance(value, dict):
        raise ConfigError(f"expected a group of settings, found {value!r}", code="CFG-004")
    return {str(key): entry for key, entry in value.items()}


def require(config: Mapping[str, Any], key: str, what: str) -> Any:
    """Return a setting that has no default.

    Raises:
        ConfigError: it was not given.
    """
    value = config.get(key)
    if value is None or value == "???":
        raise ConfigError(f"{key}= is missing: {what}", code="CFG-003")
    return value


def build(node: Mapping[str, Any], **given: Any) -> Any:
    """Build the object a node's `_target_` names, adding what exists only at run time.

    Raises:
        ConfigError: a target outside the trusted modules, or arguments it does not take.
    """
    # Not Hydra's `instantiate`: it follows any name, and evaluates `${...}` in values once more.
    kind = trusted_class(node.get("_target_"))
    arguments = {str(k): _built(v) for k, v in node.items() if k != "_target_"}
    if odd := [key for key in arguments if key.startswith("_")]:
        raise ConfigError(f"_target_ {kind.__name__}: {odd[0]} has no meaning here", code="CFG-005")
    try:
        return kind(**arguments, **given)
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"{node['_target_']}: {fault}", code="CFG-005") from fault


def trusted_class(target: object) -> type[Any]:
    """Return the class of a dotted name, if a config may hold that name.

    Raises:
        ConfigError: it is not a class of a trusted module, or one that reads files, downloads
            weights or runs code that it is given.
    """
    module, _, name = str(target).rpartition(".")
    known = module in TRUSTED and name.isidentifier() and not FORBIDDEN.search(name)
    kind = getattr(import_module(module), name, None) if known else None
    if not inspect.isclass(kind) or not _is_trusted(kind, module):
        near = get_close_matches(name, _class_names(module), n=1) if known and not kind else []
        meant = f"; the nearest is {module}.{near[0]}" if near else ""
        raise ConfigError(
            f"_target_ {target}: a config may only name classes of {', '.join(TRUSTED)} that "
            f"neither read files nor run code{meant}",
            code="CFG-005",
            hint="put your own code in a module and name it with plugins= on the command line",
        )
    return kind


def _is_trusted(kind: type[Any], module: str) -> bool:
    home, _, base = TRUSTED[module].rpartition(".")
    return (
        issubclass(kind, getattr(import_module(home), base))
        # An alias, such as LoadImaged for LoadImageDict, is judged by its real name, too.
        and not FORBIDDEN.search(kind.__name__)
        # Weights from the network, or from a file that may hold code.
        and not any(p.startswith("pretrained") for p in inspect.signature(kind).parameters)
    )


def _class_names(module: str) -> list[str]:
    return [name for name, _ in inspect.getmembers(import_module(module), inspect.isclass)]


def _built(value: Any) -> Any:
    """Build the objects that stand inside a value."""
    if isinstance(value, Mapping):
        return build(value) if "_target_" in value else {k: _built(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_built(entry) for entry in value]
    return value


def load_plugins(plugins: Sequence[str]) -> None:
    """Import the user's own parts, so that they enter themselves into the registries.

    Args:
        plugins: names of installed modules, or paths of Python files.

    Raises:
        ConfigError: one that cannot be imported.
    """
    for plugin in plugins:
        try:
            if plugin.endswith(".py"):
                _import_file(Path(plugin))
            else:
                import_module(plugin)
        except (ImportError, SyntaxError, OSError) as fault:
            raise ConfigError(f"plugins={plugin}: {fault}", code="CFG-006") from fault


def _import_file(path: Path) -> None:
    spec = spec_from_file_location(path.stem, path.absolute())
    if spec is None or spec.loader is None:
        raise ImportError("is no Python file")
    module = module_from_spec(spec)
    # Entered before it runs, as an import would: dataclasses look their module up.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


def _say_which() -> None:
    """Print which job of a sweep begins; all else that it prints says nothing about that."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from medseg.runtime.console import say

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        say(f"job {hydra.job.num}: {' '.join(hydra.overrides.task)}")


def _run_task(command: str, config: Any) -> int:
    """Run a task; a refusal becomes one line and an exit code, so that a sweep goes on."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        return int(import_module(f"medseg.tasks.{command}").main(config) or 0)
    except MedsegError as refusal:
        told = str(refusal)
    except OmegaConfBaseException as fault:
        # A `${...}` that leads nowhere; Hydra would print a page.
        told = " ".join(str(fault).split())
    sys.stderr.write(f"medseg {command}: {told}\n")
    return EXIT_REFUSED


def _explain(fault: Exception, command: str) -> ConfigError:
    """Make one line of a composition fault, with the nearest thing that exists."""
    text = " ".join(str(fault).split())
    if asked := re.match(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text):
        key = asked[1] or asked[2]
        return _no_such(key, _known_keys(command), command)
    if missing := re.search(
        r"Could not find '(.+)/([^/]+)' Available options .*: (.+) Config", text
    ):
        group, name, options = missing.groups()
        near = get_close_matches(name, options.split(), n=1)
        meant = f"; the nearest is {near[0]}" if near else ""
        return ConfigError(
            f"{group}={name}: no such choice{meant}", code="CFG-002", hint=f"there is {options}"
        )
    if word := getattr(fault, "override", None):
        key, equals, _ = word.partition("=")
        # A path after a misspelt key is what the grammar stumbles over, not what is wrong.
        if equals and re.fullmatch(r"[\w.]+", key) and key not in (known := _known_keys(command)):
            return _no_such(key, known, command)
        cause = re.sub(r"^Error parsing override '.*?' | See https.*$", "", text)
        return ConfigError(
            f"{word}: expected key=value ({cause})",
            code="CFG-004",
            hint="quote a value that holds special characters: key=\"'...'\"",
        )
    return ConfigError(
        text, code="CFG-004", hint=f"medseg {command} --cfg job shows what can be set"
    )


def _no_such(key: str, known: Sequence[str], command: str) -> ConfigError:
    near = _nearest(key, known)
    meant = f"; the nearest is {near[0]}" if near else ""
    return ConfigError(
        f"{key}: no such setting{meant}", code="CFG-001", hint=f"medseg {command} --help"
    )


def _nearest(key: str, known: Sequence[str]) -> list[str]:
    """Return the known key most like one, if any: alike as a whole, and in its own last name."""

    def name_of(path: str) -> str:
        return path.rpartition(".")[2]

    names = get_close_matches(name_of(key), {name_of(path) for path in known}, n=3, cutoff=0.5)
    return get_close_matches(key, [p for p in known if name_of(p) in names], n=1, cutoff=0.5)


def _known_keys(command: str) -> list[str]:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_module("medseg.conf", version_base="1.3"):
        found = OmegaConf.to_container(compose(config_name=command), resolve=False)
    return [".".join(path) for path in _paths(found)]


def _paths(node: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if above:
        yield above
    if isinstance(node, Mapping):
        for key, entry in node.items():
            yield from _paths(entry, (*above, str(key)))
