"""The girl of the demo, `eiei21girl`: a held-out character, drawn once as the one picture that a user would have.

python -m models.chibi.heroine
"""

import json
from pathlib import Path

from PIL import Image

from .world import Character, Look, Shot, feature_tags, render

TRIGGER = "eiei21girl"
EXAMPLES = Path(__file__).parent / "examples"

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


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
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
