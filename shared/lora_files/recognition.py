"""What a LoRA file is, which base models it fits and how it changes them, by its header alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from shared.catalog import FAMILIES
from shared.checkpoints.header import Header, TensorInfo
from shared.lora_files import keys, modules
from shared.lora_files.alphas import Alphas
from shared.lora_files.keys import ALPHA
from shared.lora_files.kinds import BadLora, Kind, kind_of
from shared.lora_files.modules import Module
from shared.lora_files.values import EXPONENT, WHOLE

MAX_TENSORS = 20_000
# What other files have in their keys. The first that is found counts.
OTHER_FILES = {
    "a checkpoint, not a LoRA; put it into the folder of base models": (
        *("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.", "first_stage_model."),
    ),
    "a ControlNet, not a LoRA": ("control_model.", "controlnet_", "lllite", "input_hint_block.", "lora_controlnet"),
    "an IP-Adapter, not a LoRA": ("ip_adapter.", "image_proj."),
    "a LoRA together with embeddings; take the embeddings out of it": ("bundle_emb.",),
    "an embedding (textual inversion), not a LoRA": ("emb_params", "string_to_param", "clip_l", "clip_g"),
    "a hypernetwork or another module, not a LoRA": ("motion_modules.", "temporal_transformer"),
    "a VAE, not a LoRA": ("decoder.conv_in", "encoder.conv_in"),
}
# How modules begin in LoRAs for base models of other families.
OTHER_MODELS = (
    *(
        "transformer.",
        "lora_transformer_",
        "lora_unet_double_blocks",
        "lora_unet_single_blocks",
        "lora_unet_joint_blocks",
    ),
    *("lora_unet_blocks_", "lora_unet_layers_", "diffusion_model.double_blocks", "diffusion_model.blocks."),
    *("diffusion_model.layers.", "lora_te3_", "lora_prior_", "text_encoder_3."),
)

Sides = Mapping[str, tuple[str, TensorInfo]]  # side -> its key, and what it is


@dataclass(frozen=True)
class Recognised:
    """A LoRA that can be used."""

    family: str  # of the base models that it fits
    kinds: list[str]  # such as lora, locon, loha, lokr, tucker, dora
    parts: dict[str, int]  # how many modules of each part it changes
    rank: int  # the largest; 0 if it has none
    metadata: dict[str, str] = field(default_factory=dict)


def recognise(header: Header, family: str | None = None) -> Recognised:
    """Tell what a file is. `family`: for the rare file that fits several, which one is meant.

    Raises:
        BadLora: it isn't a LoRA, or one for a base model or of a kind that we don't read. The whole file is refused for
            one tensor, for a part of a LoRA would be another LoRA.
    """
    _refuse_other_files(header.tensors)
    _refuse_other_models(header.tensors)
    grouped = group(header.tensors)
    Alphas(header.metadata)
    found = {name: _changes(grouped, names_of_family(name)) for name in _candidates(grouped, family)}
    fitting = {name: changes for name, changes in found.items() if not isinstance(changes, BadLora)}
    chosen = _chosen(header, grouped, found, fitting)
    changes = fitting[chosen]
    kinds = {word for module, kind in changes for word in _words(module, kind)}
    parts: dict[str, int] = defaultdict(int)
    for module, _ in changes:
        parts[module.part] += 1
    return Recognised(chosen, sorted(kinds), dict(parts), max(kind.rank for _, kind in changes), header.metadata)


def group(tensors: Mapping[str, TensorInfo]) -> dict[str, Sides]:
    """The tensors of a file by the names of their modules.

    Raises:
        BadLora: a tensor isn't a change of a weight that we read.
    """
    if len(tensors) > MAX_TENSORS:
        raise BadLora(f"it has {len(tensors)} tensors, and {MAX_TENSORS} are allowed", code="not_a_lora")
    if not any(keys.split(key)[1] or keys.unread(key) for key in tensors):
        raise BadLora(f"this isn't a LoRA: it has no change of a weight, but {min(tensors)[:200]}", code="not_a_lora")
    found: dict[str, dict[str, tuple[str, TensorInfo]]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, side = keys.split(key)
        if side is None:
            what = keys.unread(key)
            if what:
                raise BadLora(f"it changes {what} ({key}), which is not read here", code="lora_kind_not_read")
            raise BadLora(f"its tensor {key[:200]} isn't part of a LoRA that we read", code="lora_kind_not_read")
        if side in found[name]:
            raise BadLora(f"it has both {found[name][side][0]} and {key}, which are the same", code="lora_does_not_fit")
        if tensor.dtype not in EXPONENT and not (side == ALPHA and tensor.dtype in WHOLE):
            raise BadLora(
                f"{key} is of the type {tensor.dtype}; save the LoRA as fp16, bf16 or fp32", code="lora_kind_not_read"
            )
        found[name][side] = (key, tensor)
    return dict(found)


def matched(grouped: Mapping[str, Sides], known: Mapping[str, Module]) -> list[tuple[Module, Kind, Sides]]:
    """Each module that a file changes, with the kind of its change.

    Raises:
        BadLora: there is no such module, two names mean the same one, or a change doesn't fit.
    """
    result, seen = [], dict[Module, str]()
    for name, sides in grouped.items():
        module = known.get(name)
        if module is None:
            raise BadLora(f"there is no module {name[:200]}", code="lora_does_not_fit")
        if module in seen:
            raise BadLora(f"it changes {module.path} as {seen[module]} and as {name}", code="lora_does_not_fit")
        seen[module] = name
        try:
            kind = kind_of({side: tensor.shape for side, (_, tensor) in sides.items()}, module.shape)
        except BadLora as error:
            raise BadLora(f"{name}: {error}", code="lora_does_not_fit") from error
        result.append((module, kind, sides))
    return result


def named(every: Iterable[Module]) -> dict[str, Module]:
    """Modules by all names that files have for them."""
    return {name: module for module in every for name in keys.names(module)}


@cache
def names_of_family(family: str) -> dict[str, Module]:
    return named(modules.of_family(family))


def _refuse_other_files(tensors: Mapping[str, TensorInfo]) -> None:
    for what, words in OTHER_FILES.items():
        key = next((key for key in tensors for word in words if key.startswith(word) or f".{word}" in key), None)
        if key is not None:
            raise BadLora(f"this is {what} (it has {key[:100]})", code="not_a_lora")


def _refuse_other_models(tensors: Iterable[str]) -> None:
    for key in tensors:
        if key.startswith(OTHER_MODELS):
            raise BadLora(
                f"it was made for another kind of base model (it has {key[:100]}); "
                f"we read LoRAs for {_list(modules.MODELS)}",
                code="lora_for_another_family",
            )


def _candidates(grouped: Mapping[str, Sides], family: str | None) -> list[str]:
    """The families that have all modules of a file; the one that is meant, if one is."""
    if family is not None and family not in modules.MODELS:
        raise BadLora(f"LoRAs for the family {family} are not read here; we read {_list(modules.MODELS)}")
    names = [family] if family else list(modules.MODELS)
    unknown = {name: [each for each in grouped if each not in names_of_family(name)] for name in names}
    complete = [name for name in names if not unknown[name]]
    if complete:
        return complete
    nearest = min(names, key=lambda name: len(unknown[name]))
    raise BadLora(
        f"its module {unknown[nearest][0][:200]} is in no base model that we know; "
        f"we read LoRAs for {_list(modules.MODELS)}",
        code="lora_for_another_family",
    )


def _changes(grouped: Mapping[str, Sides], known: Mapping[str, Module]) -> list[tuple[Module, Kind]] | BadLora:
    try:
        return [(module, kind) for module, kind, _ in matched(grouped, known)]
    except BadLora as error:
        return error


def _count_fitting(grouped: Mapping[str, Sides], family: str) -> int:
    """How many modules of a file fit a family."""
    known = names_of_family(family)
    return sum(not isinstance(_changes({name: sides}, known), BadLora) for name, sides in grouped.items())


def _chosen(
    header: Header,
    grouped: Mapping[str, Sides],
    found: Mapping[str, list[tuple[Module, Kind]] | BadLora],
    fitting: Mapping[str, list[tuple[Module, Kind]]],
) -> str:
    """The one family that a file fits. Where its weights leave several, its metadata decides."""
    if not fitting:
        nearest = _named_family(header.metadata, found) or max(found, key=lambda name: _count_fitting(grouped, name))
        error = found[nearest]
        assert isinstance(error, BadLora)
        raise BadLora(
            f"it fits no base model that we know; as a LoRA for {FAMILIES[nearest].title}: {error}", code=error.code
        )
    if len(fitting) == 1:
        return next(iter(fitting))
    chosen = _named_family(header.metadata, fitting)
    if chosen is None:
        raise BadLora(
            f"it fits base models of {_list(fitting)} and doesn't say which it was made for; say it by `family`",
            code="family_unclear",
        )
    return chosen


def _named_family(metadata: Mapping[str, str], among: Iterable[str]) -> str | None:
    """The family that the metadata names."""
    version, architecture = (metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture"))
    for family in among:
        row = FAMILIES[family]
        if version.startswith(row.kohya_versions) or architecture.startswith(row.architectures):
            return family
    return None


def _words(module: Module, kind: Kind) -> list[str]:
    """The words for a kind of change; people call a LoRA of larger kernels LoCon."""
    has_kernel = len(module.shape) == 4 and module.shape[2:] != (1, 1)
    name = "locon" if kind.name == "lora" and has_kernel else kind.name
    return [name, *(["tucker"] if kind.tucker else []), *(["dora"] if kind.decomposed else [])]


def _list(families: Iterable[str]) -> str:
    *titles, last = [FAMILIES[family].title for family in families]
    return f"{', '.join(titles)} and {last}" if titles else last
