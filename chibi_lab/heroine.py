"""The girl of the demo, `eiei21girl`: a held-out character, drawn once as the one picture that a user would have.

Beside her a sheet of the world: she from all sides, she in all styles, and others by chance.

python -m chibi_lab.heroine
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .sheet import save_sheet
from .world import (
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
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "models/chibi/examples"

HEROINE = Character(
    who="1girl",
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
    footwear="sandals",
    footwear_color="brown",
    look=Look(
        fringe="zigzag",
        eye_kind="large",
        brows="thin",
        blush=True,
        head_shape="wide",
        trim_color="white",
        accent="red",
        stripe="left",
        stripe_color="white",
        tone="candy",
    ),
)


def world_sheet() -> list[np.ndarray]:
    rng = np.random.default_rng(12)
    views = [render(HEROINE, Shot(view=view)) for view in VIEWS]
    styles = [render(HEROINE, Shot(style=style, background="outdoors")) for style in STYLES]
    others = [render(sample_character(rng), sample_shot(rng)) for _ in range(45)]
    return [*views, *styles, *others]


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
    save_sheet(ROOT / "docs/images/world.png", world_sheet(), 10)
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
