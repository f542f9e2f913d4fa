"""Plans: the rounds of a project with their kinds, targets and parameters.

A client gives any part of a plan; the base model's family fills in the rest. A plan is stored with every parameter, so
that later changes of defaults don't affect a project.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from shared import captions, prompts
from shared.catalog import FAMILIES, FRAMINGS, HIDDEN_BY_FRAMING, HIDDEN_BY_VIEW, VIEWS, BaseModel
from shared.catalog.defaults import generate_defaults, prompt_tags, train_defaults
from shared.catalog.params import (
    MAX_BATCH,
    MAX_CANDIDATES,
    MAX_SIDE,
    MIN_SIDE,
    GenerateParams,
    Plan,
    RoundPlan,
    ScoreParams,
    TrainParams,
    WantedPicture,
)
from shared.errors import Invalid, under
from shared.lifecycle import RoundKind, caption_policy
from shared.prompts import BadPrompt

DEFAULT_ROUNDS: list[dict[str, Any]] = [
    {"kind": "style", "target": 16},
    {"kind": "style", "target": 40},
    {"kind": "character"},
]
PARAMS = ("train", "generate", "score")  # nested parameters of a round
ENOUGH = 0.75  # share of a round's target with which `auto` completes the round
Given = Mapping[str, Any]  # a client's values, checked by the API's schema; null means not given
P = TypeVar("P")


def resolve(given: Given | None, base_model: BaseModel) -> Plan:
    """Fill in every parameter of a plan.

    Raises:
        Invalid: no rounds, a style round without a target, targets that shrink, a round after the character round. Its
            pointers begin at the plan.
    """
    rounds = []
    for number, each in enumerate((given or {}).get("rounds") or DEFAULT_ROUNDS):
        with under(f"/rounds/{number}"):
            rounds.append(resolve_round(each, base_model))
    kinds = [each.kind for each in rounds]
    if RoundKind.CHARACTER in kinds[:-1] or kinds[-1] != RoundKind.CHARACTER:
        raise Invalid("a plan ends with its one character round", code="invalid_plan")
    targets = [each.target for each in rounds if each.kind == RoundKind.STYLE]
    if targets != sorted(set(targets)):
        raise Invalid("the targets of the style rounds must grow from round to round", code="invalid_plan")
    rounds[-1] = replace(rounds[-1], target=targets[-1] if targets else 0)
    return Plan(rounds=rounds)


def resolve_round(given: Given, base_model: BaseModel) -> RoundPlan:
    """Fill in every parameter of a round.

    Raises:
        Invalid: a style round without a target, or what can't be drawn. Its pointers begin at the round.
    """
    plan = _round(given, base_model)
    if plan.kind == RoundKind.CHARACTER:
        return replace(plan, target=0)  # it adds no pictures
    if not plan.target:
        raise Invalid(
            "a style round needs a `target`: the pictures in the dataset when it ends",
            code="invalid_plan",
            errors=[{"pointer": "/target", "detail": "required"}],
        )
    return plan


def carry_over(plan: Plan, old: BaseModel, new: BaseModel) -> Plan:
    """The plan for another base model. Keeps values that differ from the old defaults; resolves the rest again."""
    return resolve({"rounds": [_overrides_of(each, old) for each in plan.rounds]}, new)


def generate_params(base_model: BaseModel, given: Given | None, clip_skip: int = 0) -> GenerateParams:
    """Generation parameters with the family's defaults filled in. A default batch shrinks to the size that fits.

    `clip_skip`: that of the training whose LoRA draws.

    Raises:
        Invalid: the family doesn't offer the sampler, the clip skip or the prompt syntax, or draws no pictures of this
            size, or not so many at once; or the negative prompt can't be read. Its pointers begin at the parameters.
    """
    family = FAMILIES[base_model.family]
    side = max(1, base_model.resolution // family.side_unit) * family.side_unit
    neutral = GenerateParams(width=side, height=side, clip_skip=clip_skip)
    params = _overridden(neutral, generate_defaults(base_model), given)
    check_sampler(params.sampler, base_model)
    check_clip_skip(params.clip_skip, base_model)
    check_syntax(params.prompt_syntax, base_model)
    check_readable(params.negative_prompt or "", params.prompt_syntax, "/negative_prompt")
    check_sides(params, base_model)
    check_area(params, base_model)
    most = largest_batch(params, base_model)
    if (given or {}).get("batch_size") is None and params.batch_size is not None:
        return replace(params, batch_size=min(params.batch_size, most))
    check_batch(params, base_model)
    return params


def check_sides(params: GenerateParams, base_model: BaseModel) -> None:
    """Refuse sides that would be rounded, and name the nearest ones."""
    unit = FAMILIES[base_model.family].side_unit
    wrong = {name: side for name, side in _sides(params).items() if side % unit}
    if not wrong:
        return
    near = {name: " or ".join(map(str, _nearest(side, unit))) for name, side in wrong.items()}
    told = "; ".join(f"a {name} of {side}: use {near[name]}" for name, side in wrong.items())
    raise Invalid(
        f"sides are multiples of {unit} pixels; {told}",
        code="size_not_offered",
        errors=[
            {"pointer": f"/{name}", "detail": f"not a multiple of {unit}; the nearest: {near[name]}"} for name in wrong
        ],
    )


def _nearest(side: int, unit: int) -> list[int]:
    below = side // unit * unit
    return [each for each in (below, below + unit) if MIN_SIDE <= each <= MAX_SIDE]


def check_area(params: GenerateParams, base_model: BaseModel) -> None:
    """Refuse pictures that are too large for the base model, and name the largest of this shape."""
    family, sides = FAMILIES[base_model.family], _sides(params)
    area, most = math.prod(sides.values()), family.max_squares * base_model.resolution**2
    if area <= most:
        return
    scale, unit = math.sqrt(most / area), family.side_unit
    largest = {name: max(unit, int(side * scale) // unit * unit) for name, side in sides.items()}
    raise Invalid(
        f"{_size(params)} is too large for the base model {base_model.name!r}; "
        f"the largest of this shape is {'x'.join(map(str, largest.values()))}",
        code="size_too_large",
        errors=[{"pointer": f"/{name}", "detail": f"at most {side} in this shape"} for name, side in largest.items()],
    )


def size_of_redrawing(own: tuple[int, int], given: Given | None, base_model: BaseModel) -> tuple[int, int]:
    """Width and height in pixels at which a picture is drawn again.

    By default they are the picture's own, rounded to sides that the family can draw, and scaled down if it is too
    large. If the client gives one side, the other one keeps the shape. If it gives both, these are used.
    """
    family = FAMILIES[base_model.family]
    wide, high = ((given or {}).get(name) for name in ("width", "height"))
    most = family.max_squares * base_model.resolution**2
    if wide is not None:
        scale = wide / own[0]
    elif high is not None:
        scale = high / own[1]
    else:
        scale = min(1, math.sqrt(most / (own[0] * own[1])), MAX_SIDE / max(own))
    unit = family.side_unit
    least = -(-MIN_SIDE // unit) * unit
    width, height = (max(least, round(side * scale / unit) * unit) for side in own)
    if width * height > most and scale <= 1:  # rounded up
        width, height = (max(least, int(side * scale / unit) * unit) for side in own)
    width, height = wide or width, high or height
    drawn = GenerateParams(width=width, height=height)
    check_sides(drawn, base_model)
    check_area(drawn, base_model)
    return width, height


def largest_batch(params: GenerateParams, base_model: BaseModel) -> int:
    """How many pictures of this size may be drawn at once."""
    most = FAMILIES[base_model.family].max_batch_squares * base_model.resolution**2
    return max(1, min(MAX_BATCH, most // math.prod(_sides(params).values())))


def check_batch(params: GenerateParams, base_model: BaseModel) -> None:
    """Refuse a batch that needs more memory than a worker is expected to have."""
    most = largest_batch(params, base_model)
    if params.batch_size is not None and params.batch_size > most:
        raise Invalid(
            f"a batch of {params.batch_size} pictures of {_size(params)} is too large for the base model "
            f"{base_model.name!r}; the largest batch of this size is {most}",
            code="batch_too_large",
            errors=[{"pointer": "/batch_size", "detail": f"at most {most} of this size"}],
        )


def _sides(params: GenerateParams) -> dict[str, int]:
    assert params.width is not None
    assert params.height is not None
    return {"width": params.width, "height": params.height}


def _size(params: GenerateParams) -> str:
    return f"{params.width}x{params.height}"


def _round(given: Given, base_model: BaseModel) -> RoundPlan:
    family, kind, target = FAMILIES[base_model.family], RoundKind(given["kind"]), given.get("target") or 0
    train = _overridden(
        TrainParams(resolution=base_model.resolution), train_defaults(base_model, kind), given.get("train")
    )
    with under("/train"):
        check_clip_skip(train.clip_skip, base_model)
    with under("/generate"):
        generate = generate_params(base_model, given.get("generate"), train.clip_skip)
    neutral = RoundPlan(
        kind=kind,
        caption_policy=caption_policy(kind),
        prompt_tags=prompt_tags(base_model),
        enough=math.ceil(ENOUGH * target),
        train=train,
        generate=generate,
        score=_overridden(ScoreParams(), family.score, given.get("score")),
    )
    own = {name: value for name, value in given.items() if name not in ("kind", *PARAMS)}
    plan = _overridden(neutral, family.gather, own)
    return replace(plan, prompt_tags=captions.clean(plan.prompt_tags))


def _overridden(params: P, *overrides: Given | None) -> P:
    """Apply overrides in order. A null value overrides nothing."""
    for given in overrides:
        chosen = {name: value for name, value in (given or {}).items() if value is not None}
        params = replace(params, **chosen)  # type: ignore[type-var]
    return params


def _overrides_of(plan: RoundPlan, base_model: BaseModel) -> dict[str, Any]:
    """The values that a client must give to get this round: its differences from the defaults."""
    skeleton = {"kind": plan.kind, "target": plan.target}
    return skeleton | _differences(asdict(plan), asdict(_round(skeleton, base_model)))


def _differences(chosen: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in chosen.items():
        if value != defaults[name]:
            found[name] = _differences(value, defaults[name]) if name in PARAMS else value
    return found


def visible(feature_tags: list[str], view: str | None, framing: str | None) -> list[str]:
    """The features that this view and framing can show. For example, eyes are hidden from behind."""
    hidden = HIDDEN_BY_VIEW.get(view or "", ()) + HIDDEN_BY_FRAMING.get(framing or "", ())
    return [tag for tag in feature_tags if not any(word in tag.split() for word in hidden)]


def candidates(missing: int, plan: RoundPlan) -> int:
    """How many candidates a round draws for its missing pictures."""
    return min(MAX_CANDIDATES, math.ceil(missing * plan.candidates_per_pick))


def spread(weights: dict[str, int] | list[str], count: int) -> list[str]:
    """`count` names in proportion to their weights, interleaved so that any prefix is in proportion too."""
    shares = dict.fromkeys(weights, 1) if isinstance(weights, list) else weights
    names: list[str] = []
    given = dict.fromkeys(shares, 0)
    for _ in range(count):
        neediest = min(shares, key=lambda name: (given[name] + 1) / max(shares[name], 1e-9))
        given[neediest] += 1
        names.append(neediest)
    return names


def quota(views: Sequence[str], accepted: Mapping[str | None, int], places: int) -> dict[str, int]:
    """Share `places` more pictures among the views, rarest first, so that the views become balanced."""
    wanted: Counter[str] = Counter()
    for _ in range(places):
        wanted[min(views, key=lambda view: accepted.get(view, 0) + wanted[view])] += 1
    return dict(wanted)


def pictures(
    *,
    trigger_word: str,
    subject_tags: list[str],
    feature_tags: list[str],
    views: list[str],
    framings: dict[str, int],
    prompt_tags: list[str],
    count: int,
    seed: int,
    name_features: bool,
) -> list[WantedPicture]:
    """The pictures to draw: views in equal shares, framings by weight, a different seed for each picture."""
    drawn: list[WantedPicture] = []
    for view in views:
        share = len(range(views.index(view), count, len(views)))
        for framing in spread(framings, share):
            features = visible(feature_tags, view, framing) if name_features else []
            tags = [trigger_word, *subject_tags, *features, VIEWS[view], FRAMINGS[framing], *prompt_tags]
            drawn.append(WantedPicture(prompt=captions.join(tags), seed=seed + len(drawn), view=view, framing=framing))
    return drawn


def check_prompt(prompt: str, base_model: BaseModel, pointer: str, syntax: str = "plain") -> None:
    """Refuse a prompt that can't be read, or that is longer than the base model reads."""
    check_readable(prompt, syntax, pointer)
    limit = FAMILIES[base_model.family].text_limit
    if limit is None or (tokens := limit.least_tokens(prompt)) <= limit.max_tokens:
        return
    most = limit.max_tokens
    raise Invalid(
        f"the prompt has at least {tokens} tokens, but {base_model.name} reads only {most}; shorten it",
        code="prompt_too_long",
        errors=[{"pointer": pointer, "detail": f"more than {most} tokens: {prompt}"}],
    )


def check_readable(prompt: str, syntax: str, pointer: str) -> None:
    """Refuse tags by which other tools load a LoRA, and brackets that can't be read as weights."""
    if named := prompts.named_network(prompt):
        raise _bad_prompt(
            f"the prompt names a LoRA ({named}); take it out of the prompt, and name the LoRA with its `weight` in "
            "`loras` of the request",
            "lora_in_prompt",
            pointer,
        )
    if syntax == "weighted":
        try:
            prompts.parse(prompt)
        except BadPrompt as error:
            raise _bad_prompt(str(error), "bad_prompt", pointer) from error


def _bad_prompt(detail: str, code: str, pointer: str) -> Invalid:
    return Invalid(detail, code=code, errors=[{"pointer": pointer, "detail": detail}])


def check_clip_skip(clip_skip: int | None, base_model: BaseModel) -> None:
    """Refuse to leave out so many layers that the text encoder has none left."""
    most = FAMILIES[base_model.family].max_clip_skip
    if clip_skip is not None and clip_skip > most:
        raise Invalid(
            f"a clip_skip of {clip_skip} is too large for the base model {base_model.name!r}; the largest is {most}",
            code="clip_skip_not_offered",
            errors=[{"pointer": "/clip_skip", "detail": f"at most {most}"}],
        )


def check_syntax(syntax: str, base_model: BaseModel) -> None:
    """Refuse a prompt syntax that the base model's family does not read."""
    offered = FAMILIES[base_model.family].prompt_syntaxes
    if syntax not in offered:
        raise Invalid(
            f"the base model {base_model.name!r} reads no {syntax} prompts; use one of {', '.join(offered)}",
            code="prompt_syntax_not_offered",
            errors=[{"pointer": "/prompt_syntax", "detail": f"one of {', '.join(offered)}"}],
        )


def check_sampler(sampler: str | None, base_model: BaseModel) -> None:
    """Refuse a sampler that the base model's family does not offer. None means the family's default."""
    offered = FAMILIES[base_model.family].samplers
    if sampler is not None and sampler not in offered:
        raise Invalid(
            f"the base model {base_model.name!r} has no sampler {sampler!r}; use one of {', '.join(offered)}",
            code="sampler_not_offered",
            errors=[{"pointer": "/sampler", "detail": f"one of {', '.join(offered)}"}],
        )


def image_tags(feature_tags: list[str], view: str | None, framing: str | None, others: list[str]) -> list[str]:
    """The tags of an image: its visible features, view and framing, and its other tags."""
    seen = [VIEWS[view]] if view else []
    framed = [FRAMINGS[framing]] if framing else []
    return captions.clean([*visible(feature_tags, view, framing), *seen, *framed, *others])
