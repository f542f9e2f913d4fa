"""The strength of changes without an alpha of their own: that of peft's config in the metadata, else full strength.

peft applies a change times alpha / rank, or alpha / sqrt(rank) where `use_rslora` is set (arXiv 2312.03732).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.lora_files.kinds import BadLora

CONFIG = "lora_adapter_metadata"  # the metadata key under which diffusers keeps peft's config of each part
NUMBER = (int, float)


class Alphas:
    """What peft's config says of each module."""

    def __init__(self, metadata: Mapping[str, str]):
        """Raises `BadLora` if there is a config, and it can't be read."""
        try:
            self._config: dict[str, Any] = msgspec.json.decode(metadata.get(CONFIG, "{}"), type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadLora(f"its metadata {CONFIG} can't be read: {error}") from error
        for key, value in self._config.items():
            if key.endswith("lora_alpha") and not _is_number(value):
                raise BadLora(f"its metadata says that {key} is {value!r}, which isn't a number")
            if key.endswith("alpha_pattern"):
                _check_pattern(key, value)

    def of(self, part: str, path: str, rank: int) -> float:
        """The alpha of a change of this rank, such that its scale is alpha / rank."""
        given = self._value(part, "lora_alpha", float(rank))
        for pattern, alpha in self._value(part, "alpha_pattern", {}).items():
            plain = _plain(pattern)
            if path == plain or path.endswith(f".{plain}"):
                given = alpha
                break
        return float(given) * (math.sqrt(rank) if self._value(part, "use_rslora", False) else 1.0)

    def _value(self, part: str, name: str, default: Any) -> Any:
        """The value under a part's prefix, else the one without a prefix, as in a config of a single part."""
        return self._config.get(f"{part}.{name}", self._config.get(name, default))


def _check_pattern(key: str, value: Any) -> None:
    """Allow plain paths only. peft allows regular expressions, and a hostile one could run for ever."""
    if not isinstance(value, dict):
        raise BadLora(f"its metadata {key} isn't a table")
    for pattern, alpha in value.items():
        if not _plain(pattern).replace(".", "").replace("_", "").isalnum() or not _is_number(alpha):
            raise BadLora(f"its metadata {key} has {pattern!r}: {alpha!r}, but must have a module's path and a number")


def _plain(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")


def _is_number(value: Any) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool) and math.isfinite(value)
