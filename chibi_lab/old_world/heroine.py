"""The girl of the demo, `eiei21girl`: a held-out character, drawn once as the one picture that a user would have.

Beside her a sheet of the world: she from all sides, she in all styles, and others by chance.

python -m chibi_lab.old_world.heroine
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from chibi_lab.sheet import save_sheet

from . import (
    STYLES,
    VIEWS,
    Character,
    Look,
    Shot,
    feature_tags,
    render,
    sample_character,
    sample_shot,
)

TRIGGER = "eiei21girl"
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "models/chibi/examples"

HEROINE = Character(
    hair="blonde",
    hair_style="twintails",
    eyes="yellow",
    skin="light",
    ears="fox ears",
    fur="orange",
    tail="fox tail",
    outfit="kimono",
    outfit_color="red",
    bottom="none",
    bottom_color="black",
    accessory="none",
    accessory_color="red",
    look=Look(bangs="zigzag", eye_kind="large", brows=True),
)


def world_sheet() -> list[np.ndarray]:
    rng = np.random.default_rng(12)
    views = [render(HEROINE, Shot(view=view)) for view in VIEWS]
    styles = [render(HEROINE, Shot(style=style, background="outdoors")) for style in STYLES]
    others = [render(sample_character(rng), sample_shot(rng)) for _ in range(18)]
    return [*views, *styles, *others]


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
    save_sheet(ROOT / "docs/images/world.png", world_sheet(), len(VIEWS))
    Image.fromarray(render(HEROINE, Shot(), 512)).save(EXAMPLES / f"{TRIGGER}.png", optimize=True)
    tags = {
        "trigger": TRIGGER,
        "subject_tags": ["1girl", "solo"],
        "feature_tags": feature_tags(HEROINE),
        "image_tags": ["cel shading", "white background"],  # of this picture, not hers
    }
    (EXAMPLES / f"{TRIGGER}.json").write_text(json.dumps(tags, indent=2) + "\n")


if __name__ == "__main__":
    main()
