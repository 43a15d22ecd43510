"""What the plugin finds in this environment, and what it will do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

from tetris_vllm import seams
from tetris_vllm.settings import SWITCH, from_environment

GROUP, NAME = "vllm.general_plugins", "tetris"
ALLOWED = "VLLM_PLUGINS"  # of vLLM: names of the plugins that it loads, if it is set


class Report(NamedTuple):
    """
    version:    of vLLM; None: it is not installed.
    registered: whether vLLM will find the plugin.
    allowed:    whether it will load it.
    found, missing: the places in vLLM that the plugin needs.
    settings:   what the environment says; None: the plugin is off.
    error:      what is wrong with it.
    """

    version: str | None
    registered: bool
    allowed: bool
    found: list[str]
    missing: list[str]
    settings: str | None
    error: str | None

    @property
    def verdict(self) -> str:
        """What happens when vLLM starts here."""
        if self.version is None:
            return "vLLM is not installed here"
        if not self.registered:
            return "vLLM will not find the plugin: tetris-kernels is not installed in this environment"
        if not self.allowed:
            return f"vLLM will not load the plugin: VLLM_PLUGINS does not name {NAME}"
        if self.error is not None:
            return f"vLLM will not start: {self.error}"
        if self.missing:
            return f"vLLM {self.version} is not supported: the plugin logs a line and changes nothing"
        if self.settings is None:
            return f"vLLM {self.version} is supported; the plugin is off and changes nothing, as {SWITCH} is not set"
        return f"vLLM {self.version} is supported; the plugin is on, for engines that speculate: {self.settings}"

    @property
    def works(self) -> bool:
        return self.version is not None and self.registered and self.allowed and not self.missing and self.error is None


def report(environment: Mapping[str, str]) -> Report:
    """Of this Python's packages and these environment variables. Imports nothing of vLLM."""
    version = seams.version()
    missing = seams.missing() if version is not None else []
    found = [seam for seam in seams.SEAMS if seam not in missing] if version is not None else []
    registered = any(point.value.startswith("tetris_vllm.") for point in metadata.entry_points(group=GROUP))
    allowed = ALLOWED not in environment or NAME in environment[ALLOWED].split(",")
    settings, error = None, None
    try:
        asked = from_environment(environment)
        settings = None if asked is None else str(asked)
    except ValueError as wrong:
        error = str(wrong)
    return Report(version, registered, allowed, [*map(str, found)], [*map(str, missing)], settings, error)
