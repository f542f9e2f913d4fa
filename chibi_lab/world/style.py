"""Art styles: how a seen surface becomes a drawing. The base learns these; `reserved` holds some that it never sees."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .camera import Surface
from .solid import Array, Vector

LIGHT = np.array((-0.45, 0.62, 0.64), np.float32) / np.float32(np.linalg.norm((-0.45, 0.62, 0.64)))
GREY = np.array((0.30, 0.59, 0.11), np.float32)
DEPTH_STEP = 0.12  # a jump in depth that deserves a line


@dataclass
class Sheet:
    """What a style works on. Colours, normals and light are of the covered pixels only, in their order."""

    surface: Surface
    backdrop: Array
    unit: int  # pixels of the sheet in 1/128 of the picture: the width of a line
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.covered = self.surface.covered
        self.color = self.surface.color[self.covered]  # (n, 3)
        self.normal = self.surface.normal[self.covered]  # (n, 3)
        self.light = (self.normal @ LIGHT)[:, None]  # (n, 1), cosine to the light
        self.size = len(self.covered)

    def picture(self, figure: Array, backdrop: Array | None = None) -> Array:
        """The figure in front of the backdrop."""
        picture = (self.backdrop if backdrop is None else backdrop).copy()
        picture[self.covered] = figure
        return picture

    def inked(self, figure: Array, ink: Array, outline: Vector, backdrop: Array | None = None, width: int = 0) -> Array:
        """With lines: `ink` (n, 3) on the figure, `outline` around it."""
        lines = edges(self.surface, width or self.unit)
        on_figure = lines[self.covered]
        figure = figure.copy()
        figure[on_figure] = ink[on_figure] if ink.ndim > 1 else ink
        picture = self.picture(figure, backdrop)
        picture[lines & ~self.covered] = outline
        return picture


def vec(*values: float) -> Array:
    return np.array(values, np.float32)


def cel_shading(sheet: Sheet) -> Array:
    color = np.where(sheet.light < 0.12, sheet.color * vec(0.74, 0.68, 0.80), sheet.color)
    color = np.where(sheet.light > 0.93, np.minimum(1, color * 1.06 + 0.05), color)
    return sheet.inked(color, sheet.color * 0.28, (0.20, 0.14, 0.16))


def flat_color(sheet: Sheet) -> Array:
    return sheet.picture(sheet.color)


def pastel_colors(sheet: Sheet) -> Array:
    soft = np.clip(0.5 + 0.5 * sheet.light, 0, 1)
    color = (sheet.color * 0.52 + 0.48) * (0.84 + 0.16 * soft)
    return sheet.inked(
        color, sheet.color * 0.45 + 0.20, (0.50, 0.42, 0.45), sheet.backdrop * 0.5 + 0.5 * vec(1, 0.98, 0.97)
    )


def sketch(sheet: Sheet) -> Array:
    """Pencil: grey tones, hatched shadows, dark lines on white paper."""
    grey = (sheet.color @ GREY)[:, None]
    tone = np.clip(0.55 + 0.45 * grey, 0, 1)
    hatched = (((diagonal(sheet.size) % (4 * sheet.unit)) < sheet.unit)[sheet.covered])[:, None]
    tone = np.where((sheet.light < 0.15) & hatched, tone * 0.7, tone)
    tone = np.where(grey < 0.35, tone * 0.78, tone)
    paper = np.full_like(sheet.backdrop, 0.98)
    return sheet.inked(np.repeat(tone, 3, 1), vec(0.13, 0.13, 0.13), (0.13, 0.13, 0.13), paper)


def diagonal(size: int) -> Array:
    line = np.arange(size)
    return line[:, None] + line[None, :]


def pixel_art(sheet: Sheet) -> Array:
    """Drawn at half size (see render), in few tones."""
    return np.round(cel_shading(sheet) * 7) / 7


def watercolor(sheet: Sheet) -> Array:
    """Washes of uneven strength that pool at their edges, on white paper."""
    size = sheet.size
    wash = cloud(sheet.rng, size, 6)
    shade = 0.80 + 0.20 * np.clip(0.6 + 0.6 * sheet.light, 0, 1)
    color = 1 - (1 - sheet.color * shade) * (0.62 + 0.42 * wash[sheet.covered])
    line = np.abs(np.linspace(-1, 1, size, dtype=np.float32))
    far = np.maximum(line[:, None], line[None, :])
    fade = np.clip(2.6 - 2.4 * far - cloud(sheet.rng, size, 5)[..., 0], 0, 1)[..., None]
    backdrop = 1 - (1 - sheet.backdrop) * fade * (0.45 + 0.45 * wash)
    pool = blur(edges(sheet.surface, sheet.unit).astype(np.float32), sheet.unit)[..., None]
    return sheet.picture(color, backdrop) * (1 - 0.50 * pool)


def no_lineart(sheet: Sheet) -> Array:
    """Flat vector shapes in two close tones, without lines; what lies behind something is a little darker."""
    shadow = (sheet.light < 0.05) | occluded(sheet)[sheet.covered][:, None]
    return sheet.picture(np.where(shadow, sheet.color * vec(0.87, 0.84, 0.87), sheet.color))


def occluded(sheet: Sheet) -> Array:
    """Where something nearer lies just above."""
    depth, step = sheet.surface.depth, 3 * sheet.unit
    shade = np.zeros(depth.shape, bool)
    jump = depth[:-step] - depth[step:]
    shade[step:] = sheet.covered[:-step] & (jump > 0.10) & (jump < 0.6)
    return shade


def low_poly(sheet: Sheet) -> Array:
    """Facets in soft light, a little darker towards the ground, as simple game models have it."""
    facets = np.round(sheet.normal * 2.2) / 2.2
    light = (facets @ LIGHT)[:, None] / (np.sqrt((facets**2).sum(1, keepdims=True)) + 1e-6)
    light = 0.5 * light + 0.5 * sheet.light
    height = np.broadcast_to(np.linspace(1.0, 0.0, sheet.size, dtype=np.float32)[:, None], sheet.covered.shape)
    shade = 0.74 + 0.24 * np.clip(light, -0.35, 1) + 0.10 * height[sheet.covered][:, None]
    return sheet.picture(np.clip(sheet.color * shade, 0, 1))


def painterly(sheet: Sheet) -> Array:
    """Strokes: warm light, cool shadow, edges that wander, no lines."""
    t = np.clip(0.5 + 0.5 * sheet.light, 0, 1)
    color = sheet.color * ((1 - t) * vec(0.58, 0.56, 0.74) + t * vec(1.08, 1.02, 0.92))
    picture = sheet.picture(np.clip(color, 0, 1), sheet.backdrop * vec(0.93, 0.91, 0.88))
    size, reach = sheet.size, 2.6 * sheet.unit
    dx, dy = (((cloud(sheet.rng, size, 22)[..., 0] - 0.5) * 2 * reach).astype(int) for _ in range(2))
    line = np.arange(size)
    picture = picture[np.clip(line[:, None] + dy, 0, size - 1), np.clip(line[None, :] + dx, 0, size - 1)]
    return picture * (0.93 + 0.12 * cloud(sheet.rng, size, 28))


Style = Callable[[Sheet], Array]
STYLES: dict[str, Style] = {
    "cel shading": cel_shading,
    "flat color": flat_color,
    "pastel colors": pastel_colors,
    "sketch": sketch,
    "pixel art": pixel_art,
    "watercolor": watercolor,
    "no lineart": no_lineart,
    "low poly": low_poly,
    "painterly": painterly,
}
MONOCHROME_STYLES = ("sketch",)  # colours can't be told in them


def edges(surface: Surface, width: int) -> Array:
    """Where the part changes or the depth jumps."""
    part, depth = surface.part, surface.depth
    found = np.zeros(part.shape, bool)
    found[1:] = (part[1:] != part[:-1]) | (np.abs(depth[1:] - depth[:-1]) > DEPTH_STEP)
    found[:, 1:] |= (part[:, 1:] != part[:, :-1]) | (np.abs(depth[:, 1:] - depth[:, :-1]) > DEPTH_STEP)
    for _ in range(width - 1):
        found = grown(found)
    return found


def grown(mask: Array) -> Array:
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:, 1:] |= out[:, :-1]
    return out


def cloud(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise in 0..1, (size, size, 1)."""
    knots = rng.random((cells + 1, cells + 1), np.float32)
    at = np.linspace(0, cells - 1e-3, size, dtype=np.float32)
    i, f = at.astype(int), at % 1
    f = f * f * (3 - 2 * f)
    rows = knots[i] * (1 - f)[:, None] + knots[i + 1] * f[:, None]
    return (rows[:, i] * (1 - f) + rows[:, i + 1] * f)[..., None]


def blur(image: Array, radius: int) -> Array:
    """Box blur by shifts; the radius is a few pixels."""
    for axis in (0, 1):
        image = np.stack([np.roll(image, k, axis) for k in range(-radius, radius + 1)]).mean(0)
    return image
