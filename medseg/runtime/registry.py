"""Parts by name: our own lie in files that are imported when asked for, plugins enter theirs."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from medseg.core.errors import ConfigError

Builder = TypeVar("Builder", bound=Callable[..., Any])


class Registry:
    """Builders of one kind of part.

    Args:
        kind: what the parts are, for errors, such as "model".
        homes: for each of our own parts the module whose import registers it.
        given: what a builder may ask for beside the settings of the part.
    """

    def __init__(self, kind: str, *, homes: Mapping[str, str], given: tuple[str, ...]) -> None:
        self._kind = kind
        self._homes = dict(homes)
        self._given = given
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Enter the decorated builder under a name.

        Raises:
            ConfigError: the name is taken by another builder.
        """

        def enter(builder: Builder) -> Builder:
            taken = self._builders.get(name)
            owner = taken.__module__ if taken else self._homes.get(name)
            if owner not in (None, builder.__module__):
                raise ConfigError(
                    f"{builder.__module__}: the {self._kind} name {name!r} is taken by {owner}"
                )
            self._builders[name] = builder
            return builder

        return enter

    def names(self) -> tuple[str, ...]:
        """Names of our own parts and of those that plugins entered, sorted."""
        return tuple(sorted({*self._homes, *self._builders}))

    def builder(self, name: str) -> Callable[..., Any]:
        """Return the builder of a name, importing the file it lies in.

        Raises:
            ConfigError: an unknown name, with the nearest one that exists.
        """
        if name not in self._builders and name in self._homes:
            import_module(self._homes[name])
        if name not in self._builders:
            near = get_close_matches(name, self.names(), n=1, cutoff=0.4)
            meant = f"; the nearest is {near[0]}" if near else ""
            raise ConfigError(
                f"{self._kind}={name}: no such {self._kind}{meant}",
                code="CFG-002",
                hint=f"known: {', '.join(self.names())}; one of your own needs plugins=FILE",
            )
        return self._builders[name]

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the settings a part takes, with their defaults.

        Raises:
            ConfigError: an unknown name.
        """
        parameters = inspect.signature(self.builder(name)).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in self._given}

    def build(self, name: str, *, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Build a part.

        Args:
            name: of the part.
            given: what exists at run time; a builder gets of it what its signature names.
            settings: of the part.

        Raises:
            ConfigError: an unknown name or setting, or a value the part refuses.
        """
        known = self.settings_of(name)
        for key in settings:
            if key not in known:
                near = get_close_matches(key, known, n=1, cutoff=0.5)
                meant = f"; the nearest is {near[0]}" if near else ""
                raise ConfigError(
                    f"{self._kind}={name}: no setting {key!r}{meant}",
                    code="CFG-001",
                    hint=f"it takes {', '.join(known) or 'none'}",
                )
        builder = self.builder(name)
        asked = inspect.signature(builder).parameters
        try:
            return builder(**{k: v for k, v in given.items() if k in asked}, **settings)
        except ImportError as fault:
            raise ConfigError(
                f"{self._kind}={name}: {str(fault).splitlines()[0]}", hint="install what it names"
            ) from fault
        except (ValueError, TypeError, KeyError, IndexError, AssertionError) as fault:
            raise ConfigError(f"{self._kind}={name}: {fault}") from fault
