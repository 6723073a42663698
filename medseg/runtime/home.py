"""The one folder that medseg keeps things in between commands: tracking store, caches, key."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder: `MEDSEG_HOME`, else `~/.medseg`; it is made when something is written."""
    return Path(os.environ.get("MEDSEG_HOME") or "~/.medseg").expanduser().absolute()
