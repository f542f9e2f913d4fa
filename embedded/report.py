"""The demo's report: one HTML file that needs no other files. It suits light and dark themes, and phones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from bootlora import saving
from bootlora.display import duration
from embedded.story import Lap, Story

THUMBNAIL = 256  # pixels of the longer side, so that a phone can open the report
CURVE_WIDTH, CURVE_HEIGHT = 640, 150

STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --card: #fff; --ink: #2e2c28; --faint: #77736a; --line: #e4e0d8;
  --good: #26965a; --curve: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --paper: #1b1a18; --card: #262522; --ink: #eceae4; --faint: #a19c92;
  --line: #3a3833; --good: #4cc985; --curve: #f0965a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; }
p, figcaption, .faint { color: var(--faint); margin: .4rem 0; }
p strong { color: var(--ink); }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: #fff; }
figcaption { font-size: .78rem; line-height: 1.3; }
.hero { display: grid; grid-template-columns: minmax(9rem, 1fr) 2.1fr; gap: 1rem; align-items: start; }
.grid { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); }
.three { display: grid; gap: .7rem; grid-template-columns: repeat(3, 1fr); }
.rejected img { filter: grayscale(1); opacity: .32; }
.accepted img { outline: 3px solid var(--good); outline-offset: 1px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
.compare { min-width: 34rem; width: 100%; table-layout: fixed; }
.compare td, .compare th { padding: .25rem; font-weight: 500; font-size: .85rem; }
.compare th:first-child { width: 7.5rem; text-align: left; }
.times td { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line); }
.times td:last-child { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; }
.times .faint td:first-child { padding-left: 1.2rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--faint); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-x: auto;
  font-size: .8rem; }
code { background: var(--card); border: 1px solid var(--line); border-radius: 4px;
  padding: 0 .25rem; font-size: .88em; }
a { color: inherit; }
svg { width: 100%; max-width: 640px; height: auto; display: block; }
svg text { fill: var(--faint); font-size: 12px; }
@media (max-width: 34rem) { .hero { grid-template-columns: 1fr; } .hero > figure { max-width: 14rem; } }
"""


def write(story: Story, path: Path) -> None:
    """Write the report to a file."""
    trigger = escape(story.character.trigger)
    parts = [_hero(story), _comparison(story), _references(story), *(_lap(story, lap) for lap in story.laps)]
    parts += [_dataset(story), _times(story), _parameters(story)]
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{trigger}: from one picture to a LoRA</title>\n<style>{STYLE}</style>\n"
        f"<body>\n{''.join(parts)}</body>\n</html>\n"
    )


def _hero(story: Story) -> str:
    """The first picture and the final drawings."""
    trigger = escape(story.character.trigger)
    final = story.compared[-1][1]
    views = list(dict.fromkeys(story.views))
    drawn = "".join(_figure(file, view) for view, file in zip(views, final, strict=False))
    files = "".join(f"<li><code>lora/{escape(file.parent.name)}/{escape(file.name)}</code>" for file in story.loras)
    return f"""<h1>One picture in, a LoRA out</h1>
<p>The trigger word <code>{trigger}</code> draws her from every side. It took {_number_of_images(story)} and
<strong>{duration(story.parts["in all"])}</strong> on this machine.</p>
<div class="hero">{_figure(story.character.picture, "the one picture to start from")}
<div><div class="three">{drawn}</div>
<p>Drawn with the LoRA. The prompt is <code>{trigger}, {escape(", ".join(story.character.subject_tags))}</code> and the
view. It names none of her features.</p></div></div>
<p class="faint">These files fit only chibi, the base model of this demo, which no other tool has.</p>
<ul class="faint">{files}</ul>
"""


def _comparison(story: Story) -> str:
    views = list(dict.fromkeys(story.views))
    head = "".join(f"<th>{escape(view)}" for view in views)
    rows = []
    for title, files in story.compared:
        lines = [files[start : start + len(views)] for start in range(0, len(files), len(views))]
        for number, line in enumerate(lines):
            label = f'<th rowspan="{len(lines)}">{escape(title)}' if number == 0 else ""
            rows.append(f"<tr>{label}{''.join(f'<td>{_img(file, title)}' for file in line)}</tr>")
    return f"""<h2>Before and after</h2>
<p>The same prompts and the same seeds in each column. Only the LoRA differs.</p>
<div class="scroll"><table class="compare"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>
"""


def _references(story: Story) -> str:
    pictures = "".join(_figure(file, ", ".join(image["tags"])) for image, file in story.references)
    return f"""<h2>Four pictures from one</h2>
<p>The service cropped the picture. Each crop keeps only the tags of what it shows.</p>
<div class="grid" style="grid-template-columns: repeat(auto-fill, minmax(150px, 1fr))">{pictures}</div>
"""


def _lap(story: Story, lap: Lap) -> str:
    number, kind = lap.round["number"], lap.round["kind"]
    took = sum(stage.seconds for stage in story.stages if stage.number == number)
    captions = lap.round["dataset"][0]["captions"]
    pictures = "".join(
        _figure(file, saving.caption(image), image["decision"])
        for image, file in zip(lap.images, lap.files, strict=True)
    )
    return f"""<h2>{escape(lap.title[0].upper() + lap.title[1:])}</h2>
<p>A {escape(kind)} LoRA, trained on {len(lap.round["dataset"])} pictures for {lap.lora["train_steps"]} steps,
with captions such as <code>{escape(captions[0])}</code>. The round took {duration(took)}.</p>
{_curve(lap.lora["metrics"].get("curve") or [])}
<div class="grid">{pictures}</div>
<p><a href="sheets/{escape(lap.sheet.name)}">sheets/{escape(lap.sheet.name)}</a></p>
<details><summary>parameters of round {number}</summary><pre>{_json(lap.round["plan"])}</pre></details>
"""


def _dataset(story: Story) -> str:
    pictures = "".join(_figure(file, text) for file, text in story.dataset)
    return f"""<h2>The dataset of the character LoRA</h2>
<p>{len(story.dataset)} pictures in <code>dataset/</code>, with the captions that the training used.</p>
<details><summary>show them</summary>
<div class="grid" style="grid-template-columns: repeat(auto-fill, minmax(130px, 1fr))">{pictures}</div></details>
"""


def _times(story: Story) -> str:
    rows = []
    for name, seconds in story.parts.items():
        strong = ("<strong>", "</strong>") if name == "in all" else ("", "")
        rows.append(f"<tr><td>{strong[0]}{escape(name)}{strong[1]}<td>{strong[0]}{seconds:.1f} s{strong[1]}</tr>")
        if name == "rounds":
            rows += [
                f'<tr class="faint"><td>round {stage.number}, {stage.kind}: {stage.name}<td>{stage.seconds:.1f} s</tr>'
                for stage in story.stages
            ]
    return f'<h2>How long each part took</h2>\n<table class="times">{"".join(rows)}</table>\n'


def _parameters(story: Story) -> str:
    names = ("id", "base_model", "trigger_word", "subject_tags", "feature_tags", "curation")
    about: dict[str, Any] = {name: story.project.get(name) for name in names}
    about["lora"] = {name: story.laps[-1].lora.get(name) for name in ("id", "kind", "rank", "alpha", "train_steps")}
    return f"<h2>Parameters</h2>\n<pre>{_json(about)}</pre>\n"


def _curve(curve: Sequence[Sequence[float]]) -> str:
    """The loss over the steps, and its moving average."""
    if len(curve) < 2:
        return ""
    steps, losses = [point[0] for point in curve], [point[1] for point in curve]
    top = max(losses)
    width = max(1, len(losses) // 12)
    means = [_mean(losses[max(0, i - width) : i + width + 1]) for i in range(len(losses))]

    def line(values: Iterable[float], style: str) -> str:
        points = " ".join(
            f"{40 + step / steps[-1] * (CURVE_WIDTH - 50):.1f},{10 + (1 - value / top) * (CURVE_HEIGHT - 35):.1f}"
            for step, value in zip(steps, values, strict=True)
        )
        return f'<polyline points="{points}" fill="none" stroke="var(--curve)" {style}/>'

    floor = CURVE_HEIGHT - 25
    return f"""<svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" role="img" aria-label="loss over the training steps">
<line x1="40" y1="{floor}" x2="{CURVE_WIDTH - 10}" y2="{floor}" stroke="var(--line)"/>
{line(losses, 'stroke-opacity=".35"')}{line(means, 'stroke-width="2"')}
<text x="34" y="16" text-anchor="end">{top:.2f}</text><text x="34" y="{floor + 4}" text-anchor="end">0</text>
<text x="40" y="{CURVE_HEIGHT - 6}">loss</text>
<text x="{CURVE_WIDTH - 10}" y="{CURVE_HEIGHT - 6}" text-anchor="end">step {steps[-1]:.0f}</text></svg>
"""


def _figure(file: Path, caption: str, decision: str = "pending") -> str:
    return (
        f'<figure class="{escape(decision)}">{_img(file, caption)}<figcaption>{escape(caption)}</figcaption></figure>'
    )


def _img(file: Path, alt: str) -> str:
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    inlined = io.BytesIO()
    picture.save(inlined, "WEBP", quality=90)
    data = base64.b64encode(inlined.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img {size} alt="{escape(alt)}" src="data:image/webp;base64,{data}">'


def _number_of_images(story: Story) -> str:
    drawn = sum(len(lap.images) for lap in story.laps if lap.round["kind"] == "style")
    return f"{len(story.laps)} rounds, {drawn} candidates"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _json(value: Any) -> str:
    return escape(json.dumps(value, indent=2))
