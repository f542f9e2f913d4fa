"""What the sources of a base model tell of it, and what follows where they disagree or are silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.checkpoints.header import BadModel

V, EPSILON = "v_prediction", "epsilon"
TITLES = {"sd15": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL base"}
RESOLUTIONS = {"sd15": 512, "sd2": 768, "sdxl": 1024}  # pixels of the side
PREDICTIONS = {"sd15": EPSILON, "sd2": V, "sdxl": EPSILON}  # of most models of the family
EPSILON_SD2_RESOLUTION = 512  # of the models of SD 2.x that predict the noise


@dataclass
class Told:
    """What is told of a model: for each fact, its value by the source that tells it."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_vae: bool = True
    notes: list[str] = field(default_factory=list)

    def add(self, fact: str, source: str, value: Any) -> None:
        """Add what a source tells; None is nothing."""
        if value is not None:
            self.facts.setdefault(fact, {})[source] = value

    def settle(self, fact: str) -> Any:
        """The value that all sources agree on; None if no source tells it.

        Raises:
            BadModel: two sources contradict each other.
        """
        sources = self.facts.get(fact, {})
        values = list(sources.items())
        for source, value in values[1:]:
            first_source, first_value = values[0]
            if value != first_value:
                raise BadModel(
                    f"two sources contradict each other: {first_source} says that its {WORDS[fact]} is "
                    f"{_shown(first_value)}, {source} says {_shown(value)}; say in its row which is right"
                )
        return values[0][1] if values else None


WORDS = {
    "family": "family",
    "prediction_type": "prediction type",
    "zero_terminal_snr": "zero terminal SNR",
    "resolution": "resolution",
    "lineage": "lineage",
    "license": "licence",
    "description": "title",
}


def settled(told: Told, row: dict[str, Any]) -> dict[str, Any]:
    """Every fact: by the row, else by the sources, else as usual in the family, which a note then says.

    Raises:
        BadModel: two sources contradict each other and the row doesn't decide, or nothing tells the family.
    """
    facts = {fact: row[fact] if fact in row else told.settle(fact) for fact in WORDS}
    family, prediction = _family(told, row), facts["prediction_type"]
    if prediction is None:
        small = family == "sd2" and facts["resolution"] == EPSILON_SD2_RESOLUTION
        prediction = EPSILON if small else PREDICTIONS.get(family, EPSILON)
        told.notes.append(_filled("prediction_type", prediction, family))
    if facts["zero_terminal_snr"] is None and prediction == V:
        told.notes.append(_filled("zero_terminal_snr", "false", family))
    resolution = facts["resolution"]
    if resolution is None:
        small = family == "sd2" and prediction == EPSILON
        resolution = EPSILON_SD2_RESOLUTION if small else RESOLUTIONS.get(family)
        if resolution is None:
            raise BadModel("nothing tells its resolution; write `resolution` into its row, in pixels of the side")
        told.notes.append(_filled("resolution", resolution, family))
    for fact in WORDS:
        if fact in row and any(value != row[fact] for value in told.facts.get(fact, {}).values()):
            source, value = next(item for item in told.facts[fact].items() if item[1] != row[fact])
            told.notes.append(f"{fact}: {_shown(row[fact])}, as its row says; {source} says {_shown(value)}")
    return {
        "family": family,
        "prediction_type": prediction,
        "zero_terminal_snr": bool(facts["zero_terminal_snr"]),
        "resolution": resolution,
        "lineage": facts["lineage"] or "",
        "license": facts["license"] or "",
        "description": facts["description"] or "",
    }


def _family(told: Told, row: dict[str, Any]) -> str:
    """The family. A row may name one that the file doesn't show, but not another one than the file shows."""
    found, said = told.settle("family"), row.get("family")
    if found is None and said is None:
        raise BadModel("it has the parts of Stable Diffusion, but other sizes; name its `family` in its row")
    # Chibi is a small model with the parts of SD 1.x.
    if found is not None and said is not None and said != found:
        source = next(iter(told.facts["family"]))
        raise BadModel(
            f"its row says that its family is {said}, {source} says {_shown(found)}; take `family` out of the row"
        )
    return str(said or found)


def _filled(fact: str, value: Any, family: str) -> str:
    usual = TITLES.get(family, family)
    return f"{fact}: {value}, as usual for {usual}; neither its keys nor its metadata nor its name say"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
