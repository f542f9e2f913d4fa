"""The facts of a base model: what its keys, metadata, configs and name say, what its row overrides, and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.catalog import FAMILIES
from shared.checkpoints.header import BadModel

V, EPSILON = "v_prediction", "epsilon"
RESOLUTIONS = {"sd15": 512, "sd2": 768, "sdxl": 1024}  # pixels of the side
PREDICTIONS = {"sd15": EPSILON, "sd2": V, "sdxl": EPSILON}  # of most models of the family
EPSILON_SD2_RESOLUTION = 512  # of the models of SD 2.x that predict the noise


@dataclass
class Evidence:
    """What the files and the name of a model say about it."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)  # by fact and source
    has_vae: bool = True
    notes: list[str] = field(default_factory=list)

    def add(self, fact: str, source: str, value: Any) -> None:
        """Add what a source says about a fact. None, if it says nothing, is ignored."""
        if value is not None:
            self.values.setdefault(fact, {})[source] = value

    def agreed(self, fact: str) -> Any:
        """The value that all sources agree on; None if no source says it.

        Raises:
            BadModel: two sources contradict each other.
        """
        found = list(self.values.get(fact, {}).items())
        for source, value in found[1:]:
            first_source, first_value = found[0]
            if value != first_value:
                raise BadModel(
                    f"two sources contradict each other: {first_source} says that its {WORDS[fact]} is "
                    f"{_shown(first_value)}, {source} says {_shown(value)}; say in NAME.toml which is right"
                )
        return found[0][1] if found else None


WORDS = {
    "family": "family",
    "prediction_type": "prediction type",
    "zero_terminal_snr": "zero terminal SNR",
    "resolution": "resolution",
    "lineage": "lineage",
    "license": "licence",
    "description": "title",
}


def resolve(found: Evidence, row: dict[str, Any]) -> dict[str, Any]:
    """Every fact, from the row, else from the evidence, else the usual value of the family. Adds notes about the last.

    Raises:
        BadModel: two sources contradict each other and the row doesn't decide, or nothing says the family.
    """
    facts = {fact: row[fact] if fact in row else found.agreed(fact) for fact in WORDS}
    family, prediction = _family(found, row), facts["prediction_type"]
    if prediction is None:
        small = family == "sd2" and facts["resolution"] == EPSILON_SD2_RESOLUTION
        prediction = EPSILON if small else PREDICTIONS.get(family, EPSILON)
        found.notes.append(_filled("prediction_type", prediction, family))
    if facts["zero_terminal_snr"] is None and prediction == V:
        found.notes.append(_filled("zero_terminal_snr", "false", family))
    resolution = facts["resolution"]
    if resolution is None:
        small = family == "sd2" and prediction == EPSILON
        resolution = EPSILON_SD2_RESOLUTION if small else RESOLUTIONS.get(family)
        if resolution is None:
            raise BadModel("nothing says its resolution; write `resolution` into its row, in pixels of the side")
        found.notes.append(_filled("resolution", resolution, family))
    for fact in WORDS:
        if fact in row and any(value != row[fact] for value in found.values.get(fact, {}).values()):
            source, value = next(item for item in found.values[fact].items() if item[1] != row[fact])
            found.notes.append(f"{fact}: {_shown(row[fact])}, as its row says; {source} says {_shown(value)}")
    return {
        "family": family,
        "prediction_type": prediction,
        "zero_terminal_snr": bool(facts["zero_terminal_snr"]),
        "resolution": resolution,
        "lineage": facts["lineage"] or "",
        "license": facts["license"] or "",
        "description": facts["description"] or "",
    }


def _family(found: Evidence, row: dict[str, Any]) -> str:
    """The family. The row may name it if the file doesn't show it, as with chibi; it can't contradict the file."""
    shown, named = found.agreed("family"), row.get("family")
    if shown is None and named is None:
        raise BadModel("it has the parts of Stable Diffusion, but other sizes; name its `family` in NAME.toml")
    if shown is not None and named is not None and named != shown:
        source = next(iter(found.values["family"]))
        raise BadModel(f"its row says that its family is {named}, {source} says {shown}; take `family` out of the row")
    return str(named or shown)


def _filled(fact: str, value: Any, family: str) -> str:
    usual = FAMILIES[family].title or family
    return f"{fact}: {value}, as usual for {usual}; neither its keys nor its metadata nor its name say"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
