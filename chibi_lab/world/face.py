"""The head and its face: painted on the front of the skull, with nose, ears, beard and what is worn over the eyes."""

from collections.abc import Callable

import numpy as np

from . import palette
from .body import HEAD_SHAPES, SIDES, Body
from .character import Character, Look
from .solid import Array, Keep, Paint, Solid, Vector, ball, box, cone, ellipsoid, rotate_z

INK = (0.20, 0.12, 0.12)
MOUTH = (0.70, 0.22, 0.24)
WHITE = (1.0, 1.0, 1.0)
SCAR = (0.71, 0.33, 0.34)
FACEPAINT = 0.9  # of the accent's colour
MOUTH_HEIGHT = -0.62
SAME_COLOR = 0.5  # the sum of the differences of two colours that are hardly told apart
RIMS = {"large": 1.25, "dot": 0.72}  # a dark eye in a dark face could not be seen without
EYE_WIDTH, EYE_HEIGHT = 0.205, 0.285


class Canvas:
    """Colours of surface points, addressed by azimuth (her left is positive) and height on the head."""

    def __init__(self, points: Array, skin: Array, front: float = 0.0):
        self.colors = np.broadcast_to(np.asarray(skin, np.float32), points.shape).copy()
        self.azimuth = np.arctan2(points[..., 0], points[..., 2])
        self.height = points[..., 1]
        self.in_front = points[..., 2] > front

    def fill(self, mask: Array, color: Vector) -> None:
        self.colors[self.in_front & mask] = color

    def ring(self, x: float, y: float, width: float, height: float) -> Array:
        """Below 1 inside an ellipse."""
        return ((self.azimuth - x) / width) ** 2 + ((self.height - y) / height) ** 2


def head(body: Body, character: Character, expression: str) -> list[Solid]:
    shape = HEAD_SHAPES[character.look.head_shape]
    paint = face_paint(character, expression)
    if shape.solid == "box":
        return [box("skin:head", body.head, body.radii, paint), *robot_head(body, character)]
    if shape.solid == "dome":
        chin = body.on_head(0, -0.8, 0)
        base = cone("skin:jaw", chin, body.on_head(0, 0.0, 0), 0.90 * body.radii[0], body.radii[0], paint_low(paint))
        return [ellipsoid("skin:head", body.head, body.radii, paint), base, *robot_head(body, character)]
    solids = [ellipsoid("skin:head", body.head, body.radii, paint)]
    if shape.jaw:
        *scale, drop = shape.jaw
        jaw = face_paint(character, expression, scale, -drop)
        solids.append(ellipsoid("skin:head", body.on_head(0, -drop, 0.08), body.radii * scale, jaw))
    return [*solids, *nose(body, character), *ears(body, character), *snout(body, character)]


def face_paint(character: Character, expression: str, scale: Vector = (1.0, 1.0, 1.0), lift: float = 0.0) -> Paint:
    """`scale` and `lift` place a second solid (the jaw) in the coordinates of the head."""
    painters = FACES.get(character.species, PERSON)
    front = 0.98 if HEAD_SHAPES[character.look.head_shape].solid == "box" else 0.0  # else it went over the top

    def paint(p: Array) -> Array:
        q = p * np.asarray(scale, np.float32)
        q[..., 1] += np.float32(lift)
        canvas = Canvas(q, character.skin_color, front)
        for painter in painters:
            painter(canvas, character, expression)
        return canvas.colors

    return paint


def paint_low(paint: Paint) -> Paint:
    """The lower half of a face on the cylinder below a dome."""

    def shifted(p: Array) -> Array:
        q = p.copy()
        q[..., 1] = 0.40 * q[..., 1] - 0.40
        return paint(q)

    return shifted


def iris_color(character: Character) -> Array:
    return character.dyed(character.eyes, palette.EYES)


def paint_cheeks(canvas: Canvas, character: Character, expression: str) -> None:
    look, skin = character.look, character.skin_color
    for side in (-1, 1):
        x = side * (look.eye_spacing + 0.16)
        if look.blush:
            canvas.fill(canvas.ring(x, -look.eye_drop - 0.36, 0.16, 0.085) < 1, skin * (1.0, 0.80, 0.80))
        if look.freckles:
            for dx, dy in ((-0.07, 0.0), (0.05, 0.03), (0.0, -0.06)):
                canvas.fill(canvas.ring(x + dx, -look.eye_drop - 0.33 + dy, 0.028, 0.028) < 1, skin * 0.72)
        if character.age == "old":
            wrinkle = np.abs(canvas.height + 0.40 + 0.5 * (np.abs(canvas.azimuth) - 0.30)) < 0.022
            canvas.fill(wrinkle & (np.abs(side * canvas.azimuth - 0.30) < 0.10), skin * 0.80)


def paint_stubble(canvas: Canvas, character: Character, expression: str) -> None:
    if character.facial_hair == "stubble":
        around = (canvas.height < -0.36 - 0.25 * np.cos(2.2 * canvas.azimuth)) & (np.abs(canvas.azimuth) < 1.25)
        canvas.fill(around, stubble_color(character))


def stubble_color(character: Character) -> Array:
    return 0.60 * character.skin_color + 0.40 * 0.6 * character.dyed(character.hair, palette.HAIR)


def paint_marks(canvas: Canvas, character: Character, expression: str) -> None:
    side = 1 if character.look.patch == "left" else -1
    if character.face == "facepaint":
        color = facepaint_color(character)
        for s in (-1, 1):
            canvas.fill((np.abs(canvas.azimuth - s * 0.50) < 0.09) & (np.abs(canvas.height + 0.42) < 0.20), color)
        canvas.fill((np.abs(canvas.azimuth) < 0.55) & (np.abs(canvas.height - 0.30) < 0.055), color)
    if character.face == "scar":
        slant = canvas.azimuth - side * (0.48 + 0.22 * canvas.height)
        canvas.fill((np.abs(slant) < 0.062) & (np.abs(canvas.height + 0.14) < 0.42), SCAR)
    if character.species == "zombie":
        x = canvas.azimuth - side * 0.55
        canvas.fill((np.abs(canvas.height + 0.48) < 0.03) & (np.abs(x) < 0.28), INK)
        canvas.fill(
            (np.abs(canvas.height + 0.48) < 0.09) & (np.abs((x * 9) % 1 - 0.5) < 0.16) & (np.abs(x) < 0.26), INK
        )


def facepaint_color(character: Character) -> Array:
    return FACEPAINT * character.dyed(character.look.accent)


def paint_eyes(canvas: Canvas, character: Character, expression: str) -> None:
    look, iris = character.look, iris_color(character)
    brow = 0.55 * character.dyed(character.hair, palette.HAIR)
    for side in (-1, 1):
        x = (canvas.azimuth - side * look.eye_spacing) / (EYE_WIDTH * look.eye_size)
        y = (canvas.height + look.eye_drop) / (EYE_HEIGHT * look.eye_size)
        if look.brows != "none":
            thick = {"thin": 0.10, "thick": 0.20, "angry": 0.17}[look.brows]
            slant = 0.28 * x * side if look.brows == "angry" else -0.12 * x * x
            canvas.fill((np.abs(x) < 1.0) & (np.abs(y - 1.55 - slant) < thick), brow)
        if expression == "closed eyes":
            canvas.fill((np.abs(x) < 1) & (np.abs(y - 0.55 * (1 - x * x) + 0.3) < 0.20), INK)
            continue
        if np.abs(iris - character.skin_color).sum() < SAME_COLOR:
            canvas.fill(x * x + y * y < RIMS.get(look.eye_kind, 0.0), WHITE)
        EYE_KINDS[look.eye_kind](canvas, x, y, iris, side)
        if look.lashes:
            outer = x * side
            canvas.fill((outer > 0.75) & (outer < 1.45) & (np.abs(y - 0.9 * outer + 0.25) < 0.20), INK)


def large_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    radius = x * x + y * y
    canvas.fill(radius < 1, iris)
    canvas.fill((radius < 1) & (y > 0.45), iris * 0.5)
    canvas.fill((x / 0.42) ** 2 + ((y + 0.05) / 0.45) ** 2 < 1, iris * 0.22)
    canvas.fill(((x + 0.36) / 0.30) ** 2 + ((y - 0.42) / 0.26) ** 2 < 1, WHITE)
    canvas.fill((radius >= 0.88) & (radius < 1.5) & (y > 0.25), INK)


def round_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    radius = x * x + y * y
    canvas.fill(radius < 1.1, WHITE)
    canvas.fill((x / 0.78) ** 2 + (y / 0.78) ** 2 < 1, iris)
    canvas.fill((x / 0.30) ** 2 + (y / 0.30) ** 2 < 1, iris * 0.2)
    canvas.fill((radius >= 0.95) & (radius < 1.45) & (y > 0.1), INK)


def narrow_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    inside = (x * x + y * y < 1) & (y < 0.30)
    canvas.fill(inside, WHITE)
    canvas.fill(inside & (np.abs(x) < 0.62), iris)
    canvas.fill(inside & (np.abs(x) < 0.24), iris * 0.25)
    canvas.fill((np.abs(x) < 1.15) & (np.abs(y - 0.36) < 0.16), INK)


def dot_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    """A plain oval with a spark, as low-poly figures have it."""
    canvas.fill((x / 0.60) ** 2 + (y / 0.75) ** 2 < 1, iris)
    canvas.fill(((x - 0.18) / 0.16) ** 2 + ((y - 0.26) / 0.16) ** 2 < 1, WHITE)


def white_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    """A white oval with an upright iris and no lid, as flat vector figures have it."""
    canvas.fill((x / 0.86) ** 2 + (y / 0.92) ** 2 < 1, WHITE)
    canvas.fill(((x + 0.10 * side) / 0.50) ** 2 + (y / 0.66) ** 2 < 1, iris)


def socket_eye(canvas: Canvas, x: Array, y: Array, iris: Array, side: int) -> None:
    """A skull's hole with a glow in it."""
    canvas.fill((x / 1.05) ** 2 + (y / 0.92) ** 2 < 1, INK)
    canvas.fill((x / 0.46) ** 2 + (y / 0.40) ** 2 < 1, iris)


EYE_KINDS: dict[str, Callable[[Canvas, Array, Array, Array, int], None]] = {
    "large": large_eye,
    "round": round_eye,
    "narrow": narrow_eye,
    "dot": dot_eye,
    "white": white_eye,
    "socket": socket_eye,
}


def paint_lenses(canvas: Canvas, character: Character, expression: str) -> None:
    """A robot's: one round lens, two, or a bar; a grille for a mouth."""
    look, lamp, steel = character.look, iris_color(character), 0.45 * character.skin_color
    if look.pupils == 0:
        canvas.fill((np.abs(canvas.azimuth) < 0.62) & (np.abs(canvas.height - 0.05) < 0.26), steel)
        canvas.fill((np.abs(canvas.azimuth) < 0.50) & (np.abs(canvas.height - 0.05) < 0.13), lamp)
    else:
        grow = 1.35 if look.pupils == 1 else 1.0
        for x in (0.0,) if look.pupils == 1 else (-0.36, 0.36):
            canvas.fill(canvas.ring(x, 0.10, 0.27 * grow, 0.34 * grow) < 1, steel)
            canvas.fill(canvas.ring(x, 0.10, 0.19 * grow, 0.24 * grow) < 1, lamp)
            canvas.fill(canvas.ring(x + 0.06, 0.18, 0.06, 0.07) < 1, WHITE)
    x, y = canvas.azimuth, canvas.height + 0.52
    if expression in ("open mouth", "grin"):
        canvas.fill((np.abs(x) < 0.34) & (np.abs(y) < 0.14), steel)
        canvas.fill((np.abs(x) < 0.28) & (np.abs(y) < 0.08) & (np.abs((x * 7) % 1 - 0.5) < 0.32), WHITE)
    else:
        bend = {"smile": 0.5, "frown": -0.5}.get(expression, 0.0)
        canvas.fill((np.abs(x) < 0.32) & (np.abs(y - bend * x * x + 0.02) < 0.055), steel)


def paint_skull(canvas: Canvas, character: Character, expression: str) -> None:
    """The hole of the nose, and teeth."""
    canvas.fill((np.abs(canvas.azimuth) < 0.10 * (-0.22 - canvas.height) / 0.16) & (canvas.height > -0.40), INK)
    x, y = canvas.azimuth, canvas.height - MOUTH_HEIGHT
    open_by = 0.07 if expression == "open mouth" else 0.0
    canvas.fill((np.abs(x) < 0.36) & (np.abs(y) < 0.11 + open_by), WHITE)
    canvas.fill((np.abs(x) < 0.38) & (np.abs(y) < 0.02 + open_by), INK)
    canvas.fill((np.abs(x) < 0.36) & (np.abs(y) < 0.11) & (np.abs((x * 6.5) % 1 - 0.5) > 0.40), INK)


def paint_nose(canvas: Canvas, character: Character, expression: str) -> None:
    if character.look.nose == "dot":
        canvas.fill(canvas.ring(0, -0.38, 0.06, 0.05) < 1, character.skin_color * 0.80)


def paint_mouth(canvas: Canvas, character: Character, expression: str) -> None:
    x, y = canvas.azimuth, canvas.height - MOUTH_HEIGHT
    color = MOUTH if character.skin_color.mean() > 0.45 else (0.55, 0.14, 0.16)
    if expression == "smile":
        canvas.fill((np.abs(x) < 0.26) & (np.abs(y + 0.08 - 0.13 * (x / 0.26) ** 2) < 0.045), color)
    elif expression == "frown":
        canvas.fill((np.abs(x) < 0.24) & (np.abs(y - 0.05 + 0.13 * (x / 0.24) ** 2) < 0.045), color)
    elif expression == "grin":
        inside = (np.abs(x) < 0.28) & (y < 0.07) & (y > -0.15 * np.sqrt(np.maximum(0, 1 - (x / 0.28) ** 2)))
        canvas.fill(inside, color)
        canvas.fill(inside & (y > -0.04), WHITE)
    elif expression == "open mouth":
        canvas.fill((x / 0.16) ** 2 + (y / 0.14) ** 2 < 1, color)
        canvas.fill((x / 0.09) ** 2 + ((y + 0.07) / 0.05) ** 2 < 1, (0.98, 0.55, 0.55))
    else:
        canvas.fill((np.abs(x) < 0.13) & (np.abs(y) < 0.035), color)


Painter = Callable[[Canvas, Character, str], None]
PERSON: tuple[Painter, ...] = (paint_cheeks, paint_stubble, paint_nose, paint_mouth, paint_marks, paint_eyes)
FACES: dict[str, tuple[Painter, ...]] = {
    "robot": (paint_lenses,),
    "skeleton": (paint_skull, paint_marks, paint_eyes),
    "furry": (paint_marks, paint_eyes),
}


def nose(body: Body, character: Character) -> list[Solid]:
    if character.look.nose != "big" or character.species in FACES:
        return []
    return [
        ellipsoid("nose", body.on_head(0, -0.34, 0.97), body.radii * (0.13, 0.13, 0.15), character.skin_color * 0.97)
    ]


def ears(body: Body, character: Character) -> list[Solid]:
    """Of people. A skull has none, and animal ears are elsewhere."""
    if character.species in ("skeleton", "furry") or character.ears not in ("none", "pointy ears"):
        return []
    skin = character.skin_color
    if character.ears == "pointy ears":
        return [
            cone(
                f"ears:{n}",
                body.on_head(s * 0.92, -0.10, 0.02),
                body.on_head(s * 1.55, 0.18, -0.22),
                0.115,
                0.01,
                skin,
                0.5,
            )
            for n, s in SIDES
        ]
    return [
        ellipsoid(
            f"skin:{n} ear",
            body.on_head(s * 1.0, -0.12, -0.02),
            body.radii * (0.14, 0.20, 0.12),
            skin * 0.97,
            rotate_z(-s * 8),
        )
        for n, s in SIDES
    ]


def snout(body: Body, character: Character) -> list[Solid]:
    """Of furries: a muzzle with a dark nose."""
    if character.species != "furry":
        return []
    pale = 0.5 * character.skin_color + 0.5
    return [
        ellipsoid("snout", body.on_head(0, -0.44, 0.78), body.radii * (0.42, 0.30, 0.42), muzzle_paint(pale)),
        ellipsoid("snout:nose", body.on_head(0, -0.30, 1.16), body.radii * (0.12, 0.09, 0.08), palette.DARK),
    ]


def muzzle_paint(fur: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(fur, p.shape).copy()
        line = (np.abs(p[..., 1] + 0.35 - 0.25 * np.abs(p[..., 0])) < 0.08) & (np.abs(p[..., 0]) < 0.6)
        colors[line & (p[..., 2] > 0.2)] = INK
        return colors

    return paint


def robot_head(body: Body, character: Character) -> list[Solid]:
    """Bolts where ears would be."""
    dark = 0.5 * character.skin_color
    return [
        cone(f"joint:{n} bolt", body.on_head(s * 0.9, -0.05, 0), body.on_head(s * 1.22, -0.05, 0), 0.12, 0.10, dark)
        for n, s in SIDES
    ]


def beard_keep(low: float, side: float) -> Keep:
    """A shell around the jaw, with a hole for the mouth."""

    def keep(p: Array) -> Array:
        azimuth = np.arctan2(p[..., 0], p[..., 2])
        edge = np.where(np.abs(azimuth) > side, -0.22, low)
        mouth = (azimuth / 0.34) ** 2 + ((p[..., 1] - MOUTH_HEIGHT) / 0.13) ** 2 < 1
        return (p[..., 1] < edge) & (np.abs(azimuth) < 1.45) & ~mouth

    return keep


def facial_hair(body: Body, character: Character) -> list[Solid]:
    kind = character.facial_hair
    if kind in ("none", "stubble"):
        return []
    color = character.dyed(character.hair, palette.HAIR)
    whiskers = [
        ellipsoid(
            "facial hair",
            body.on_head(s * 0.20, -0.49, 0.86),
            body.radii * (0.24, 0.09, 0.14),
            color,
            rotate_z(-s * 16),
        )
        for _, s in SIDES
    ]
    shell = ellipsoid(
        "facial hair", body.on_head(0, -0.02, 0.02), body.radii * 1.05, color, keep=beard_keep(-0.44, 0.62)
    )
    chin = body.on_head(0, -0.98, 0.52)
    return {
        "mustache": whiskers,
        "goatee": [ellipsoid("facial hair", body.on_head(0, -0.92, 0.60), body.radii * (0.20, 0.28, 0.16), color)],
        "beard": [shell, *whiskers, ellipsoid("facial hair", chin, body.radii * (0.55, 0.30, 0.34), color)],
        "long beard": [
            shell,
            *whiskers,
            cone(
                "facial hair",
                body.on_head(0, -1.85, 0.62),
                body.on_head(0, -0.75, 0.48),
                0.05,
                0.58 * body.radii[0],
                color,
                0.45,
            ),
        ],
    }[kind]


def lens(body: Body, look: Look, side: int, grow: float) -> tuple[Array, Array]:
    """Middle and radii of a disc before an eye."""
    a = side * look.eye_spacing
    return body.on_head(np.sin(a), -look.eye_drop, np.cos(a) + 0.07), body.radii * (0.27 * grow, 0.27 * grow, 0.05)


def face_wear(body: Body, character: Character) -> list[Solid]:
    """Glasses, patches and masks, over the eyes or the mouth."""
    look, accent = character.look, character.dyed(character.look.accent)
    patch = 1 if look.patch == "left" else -1
    if character.face in ("glasses", "sunglasses"):
        is_dark = character.face == "sunglasses"
        solids = []
        for name, side in SIDES:
            centre, radii = lens(body, look, side, 1.0)
            hole = None if is_dark else (lambda p: p[..., 0] ** 2 + p[..., 1] ** 2 > 0.60)
            solids.append(
                ellipsoid(f"glasses:{name}", centre, radii, palette.DARK if is_dark else 0.6 * accent, keep=hole)
            )
            hinge = body.on_head(side * 1.02, 0.0, 0.1)
            solids.append(
                cone(
                    "glasses:frame", centre + (side * 0.2 * body.radii[0], 0, -0.05), hinge, 0.018, 0.018, palette.DARK
                )
            )
        return solids
    if character.face == "eyepatch":
        centre, radii = lens(body, look, patch, 1.0)
        band = ellipsoid(
            "eyepatch:band", body.on_head(0, 0.02, 0), body.radii * 1.13, palette.DARK,
            keep=lambda p: np.abs(p[..., 1] - 0.10 + patch * 0.55 * p[..., 0]) < 0.035,
        )  # fmt: skip
        return [ellipsoid("eyepatch", centre, radii * (1.0, 1.05, 1.3), palette.DARK), band]
    if character.face == "mask":
        cloth = ellipsoid(
            "mask", body.on_head(0, 0, 0), body.radii * 1.04, accent,
            keep=lambda p: (p[..., 1] < -0.26) & (p[..., 1] > -0.95) & (p[..., 2] > -0.15),
        )  # fmt: skip
        return [cloth]
    return []


def earring(body: Body, side: int, color: Array) -> Solid:
    return ball("earring", body.on_head(side * 1.08, -0.36, 0.0), 0.075, color)
