"""The libraries that only some calls need."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def required(name: str, call: str) -> Any:
    """A library. Raises `ImportError` with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{call}: {name} cannot be imported ({error}): expected `pip install {name}`") from error
