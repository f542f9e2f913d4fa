"""The base models on this machine: what `BOOTLORA_MODELS_DIR` holds, and the rows of `BOOTLORA_MODELS_FILE`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from shared import catalog
from shared.catalog import FAMILIES, BaseModel
from shared.catalog.families import UNET
from shared.checkpoints import folder, header, licenses, recognition, rows
from shared.checkpoints.evidence import EPSILON, Evidence, V, resolve
from shared.checkpoints.header import BadModel

log = structlog.get_logger()

SUFFIX = ".safetensors"
UNREAD = {
    **dict.fromkeys(folder.PICKLES, "a pickle, which can run any code when it is read"),
    ".gguf": "a GGUF file, whose weights are quantised",
}
MAX_NAME = 100  # characters, as the API takes them
MARK = "\N{REPLACEMENT CHARACTER}"  # instead of a character that can't be shown
MAX_FILES = 1_000  # in a diffusers folder

Stamp = tuple[tuple[str, int, int], ...]  # of each file: its name, size and time of change in nanoseconds


@dataclass
class Place:
    """An entry of the folder, or a row of the file, that may be a base model."""

    name: str
    path: Path
    where: str  # for messages: the name of the file or row
    row: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Scan:
    """Finds the base models, as often as it is asked. It reads a file again only if its size or time has changed.

    An entry that can't be used is listed with its problem, and the others are not affected.
    """

    def __init__(self, models_dir: Path | None, models_file: Path | None):
        self._dir = models_dir
        self._file = models_file
        self._known: dict[Path, tuple[Stamp, Evidence | str]] = {}

    def look(self, sha256_of: Callable[[Path, Stamp], str] = lambda path, stamp: "") -> dict[str, BaseModel]:
        """All base models by name, with those that ship. `sha256_of` gives a hash; an empty text if it has none yet."""
        found = catalog.base_models()
        for shipped in found.values():
            found[shipped.name] = self._with_hash(shipped, sha256_of)
        for place in self._places():
            if place.name in catalog.BASE_MODELS:
                place.problem = f"the name {place.name!r} is that of a base model that ships; choose another name"
                place.name = place.where
            elif place.name in found:
                first = Path(found[place.name].path).name
                place.problem = f"two entries have this name: {first} and {place.where}; rename one of them"
            model = _printable(self._model(place, sha256_of))
            found[model.name] = model
        return found

    # where they are

    def _places(self) -> Iterator[Place]:
        """Every entry of the folder and of the file. A row without a path belongs to the entry of its name."""
        listed = {place.name: place for place in self._rows()}
        for place in self._entries():
            row = listed.get(place.name)
            if row is None or not (row.problem or "path" not in row.row or Path(row.row["path"]) == place.path):
                yield place
            else:
                del listed[place.name]
                yield self._joined(place, row)
        for row in listed.values():
            if not row.problem and "path" not in row.row:
                row.problem = f"{row.where} names no `path`, and the folder of models holds no {row.name}"
            yield row

    def _joined(self, place: Place, row: Place) -> Place:
        if place.row:
            row.problem = row.problem or f"{row.where} and {place.name}.toml both describe it; remove one of them"
        return Place(place.name, place.path, row.where, row.row, row.problem or place.problem)

    def _rows(self) -> Iterator[Place]:
        if self._file is None:
            return
        try:
            listed = rows.read_file(self._file)
        except BadModel as error:
            yield Place(self._file.name, self._file, self._file.name, {}, str(error))
            return
        for name, row in listed.items():
            where = f"{self._file.name}, row [{name}]"
            try:
                _check_name(name)
                given = rows.checked(row, where, self._file.parent)
                yield Place(name, Path(given.get("path", self._file)), where, given)
            except BadModel as error:
                yield Place(name[:MAX_NAME], self._file, where, {}, str(error))

    def _entries(self) -> Iterator[Place]:
        if self._dir is None:
            return
        try:
            paths = sorted(path for path in self._dir.iterdir() if not path.name.startswith("."))
        except OSError as error:
            problem = f"the folder that BOOTLORA_MODELS_DIR names can't be read: {error.strerror}"
            yield Place(self._dir.name, self._dir, self._dir.name, {}, problem)
            return
        names = set()
        for path in paths:
            suffix = path.suffix.lower()
            if path.is_dir():
                if (path / folder.INDEX).exists() or (path / UNET).is_dir() or self._sidecar(path.name).exists():
                    names.add(path.name)
                    yield self._place(path.name, path)
            elif suffix == SUFFIX:
                names.add(path.stem)
                yield self._place(path.stem, path)
            elif suffix in UNREAD:
                problem = f"this is {UNREAD[suffix]}; convert it to .safetensors"
                names.add(path.stem)
                yield Place(path.name, path, path.name, {}, problem)
        for path in paths:
            described = path.suffix.lower() != ".toml" or path.stem in names or path == self._file
            if not described and not (self._file and self._file.exists() and path.samefile(self._file)):
                problem = (
                    f"{path.name} describes nothing: the folder holds no {path.stem}{SUFFIX} and no folder {path.stem}"
                )
                yield Place(path.name, path, path.name, {}, problem)

    def _place(self, name: str, path: Path) -> Place:
        """An entry of the folder, with its sidecar."""
        sidecar = self._sidecar(name)
        try:
            _check_name(name)
            if not sidecar.exists():
                return Place(name, path, path.name)
            row = rows.checked(rows.read_file(sidecar), sidecar.name, sidecar.parent, without=("path",))
            return Place(name, path, path.name, row)
        except BadModel as error:
            return Place(name[:MAX_NAME], path, path.name, {}, str(error))

    def _sidecar(self, name: str) -> Path:
        assert self._dir is not None
        return self._dir / f"{name}.toml"

    # what they are

    def _model(self, place: Place, sha256_of: Callable[[Path, Stamp], str]) -> BaseModel:
        if not place.problem:
            try:
                return self._good(place, sha256_of)
            except BadModel as error:
                place.problem = str(error)
            except OSError as error:
                place.problem = f"it can't be read: {error.strerror or error}"
            except Exception:
                log.exception("base_model.unreadable", path=str(place.path))
                place.problem = "it can't be read; the worker's log says more"
        return BaseModel(name=place.name, family="", path=str(place.path), resolution=0, problem=place.problem)

    def _good(self, place: Place, sha256_of: Callable[[Path, Stamp], str]) -> BaseModel:
        path, row = place.path, place.row
        if not path.exists():
            raise BadModel(f"{place.where}: {path.name} is not there")
        stamp = stamp_of(path)
        found = self._evidence(path, place.name, stamp)
        facts = resolve(found, row)
        _check_fit(facts)
        if not found.has_vae and not row.get("vae"):
            raise BadModel(f"it holds no VAE; name one as `vae` in {place.name}.toml or its row")
        _check_places(row)
        facts |= _terms(facts, row, found.notes)
        return BaseModel(
            name=place.name,
            path=str(path),
            vae=row.get("vae", ""),
            config=row.get("config", ""),
            size_bytes=sum(size for _, size, _ in stamp),
            sha256=sha256_of(path, stamp),
            notes=tuple(found.notes),
            **facts,
        )

    def _evidence(self, path: Path, name: str, stamp: Stamp) -> Evidence:
        """What the files and the name of an entry say, from memory if the files are unchanged."""
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, _read(path, name))
        found = known[1]
        if isinstance(found, str):
            raise BadModel(found)
        return replace(found, notes=list(found.notes))  # the caller adds notes

    def _with_hash(self, model: BaseModel, sha256_of: Callable[[Path, Stamp], str]) -> BaseModel:
        stamp = stamp_of(Path(model.path))
        size = sum(size for _, size, _ in stamp)
        return replace(model, size_bytes=size, sha256=sha256_of(Path(model.path), stamp))


def stamp_of(path: Path) -> Stamp:
    """The sizes and times of a file, or of all files that a folder holds.

    Raises:
        BadModel: the folder holds too many files to be a model.
        OSError: something can't be read.
    """
    if not path.is_dir():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadModel(f"{path.name} is neither a file nor a folder")
        return ((path.name, status.st_size, status.st_mtime_ns),)
    found = []
    for root, folders, files in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(files):
            status = (Path(root) / name).stat()
            if stat.S_ISREG(status.st_mode):
                found.append((str((Path(root) / name).relative_to(path)), status.st_size, status.st_mtime_ns))
        if len(found) > MAX_FILES:
            raise BadModel(f"{path.name} holds more than {MAX_FILES} files; keep only one diffusers model in it")
    return tuple(found)


def _read(path: Path, name: str) -> Evidence | str:
    """The evidence of an entry, or the reason why it can't be used."""
    try:
        if path.is_dir():
            return folder.evidence_of_folder(path, name)
        if path.suffix.lower() != SUFFIX:
            return f"{path.name} isn't a {SUFFIX} file; pickles are refused, because they can run any code"
        return recognition.evidence_of_file(header.read_header(path), name)
    except BadModel as error:
        return str(error)


def _printable(model: BaseModel) -> BaseModel:
    """A base model without line breaks and control characters in its texts, so that tables and terminals take them."""
    return replace(
        model,
        name=_marked(model.name),
        path=_marked(model.path) if model.problem else model.path,
        license=_on_one_line(model.license),
        description=_on_one_line(model.description),
        problem=_on_one_line(model.problem),
        notes=tuple(_on_one_line(note) for note in model.notes),
    )


def _on_one_line(text: str) -> str:
    return _marked(" ".join(text.split()))


def _marked(text: str) -> str:
    return "".join(letter if letter.isprintable() else MARK for letter in text)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadModel(f"its name must have at most {MAX_NAME} printable characters; rename it")


def _check_fit(facts: dict[str, Any]) -> None:
    """Refuse a lineage or prediction type that the family does not have, and epsilon with zero terminal SNR."""
    family, lineage = facts["family"], facts["lineage"]
    lineages = FAMILIES[family].lineages
    if lineage and lineage not in lineages:
        known = f"its family {family} has {', '.join(lineages)}" if lineages else f"its family {family} has no lineages"
        raise BadModel(f"its row says that its lineage is {lineage}, but {known}")
    if facts["prediction_type"] not in (EPSILON, V) and FAMILIES[family].samplers != catalog.FLOW_SAMPLERS:
        raise BadModel(f"its row says that it predicts {facts['prediction_type']}, but {family} predicts epsilon or v")
    if facts["zero_terminal_snr"] and facts["prediction_type"] == EPSILON:
        raise BadModel(
            "it has zero terminal SNR and predicts epsilon, which learns nothing at the last time; "
            "say in NAME.toml which is right: `prediction_type` v_prediction, or `zero_terminal_snr` false"
        )


def _check_places(row: dict[str, Any]) -> None:
    """Refuse a row whose VAE or configs are missing or are something else."""
    vae, config = row.get("vae"), row.get("config")
    if config and not Path(config).is_dir():
        raise BadModel(f"its row names the `config` {Path(config).name}, which isn't a folder")
    if not vae:
        return
    if not Path(vae).exists():
        raise BadModel(f"its row names the `vae` {Path(vae).name}, which is not there")
    if Path(vae).is_file():
        try:
            keys = header.read_header(Path(vae)).tensors
        except BadModel as error:
            raise BadModel(f"its `vae` {Path(vae).name} can't be used: {error}") from error
        if not any(key.removeprefix(recognition.VAE) == "decoder.conv_in.weight" for key in keys):
            raise BadModel(f"its `vae` {Path(vae).name} isn't a VAE: it has no decoder")
    elif not folder.weights(Path(vae), folder.WEIGHTS["vae"]):
        raise BadModel(f"its `vae` {Path(vae).name} holds no {folder.WEIGHTS['vae']}{SUFFIX}")


def _terms(facts: dict[str, Any], row: dict[str, Any], notes: list[str]) -> dict[str, str]:
    """The licence and what it allows."""
    license = facts["license"]
    if not license and facts["lineage"] in licenses.OF_LINEAGE:
        license = licenses.OF_LINEAGE[facts["lineage"]]
        notes.append(f"license: that of {facts['lineage']}, from which it seems to descend; check it")
    commercial_use, hosting = licenses.uses(license)
    terms = {
        "license": license,
        "commercial_use": row.get("commercial_use", commercial_use),
        "hosting": row.get("hosting", hosting),
    }
    unknown = [key for key, value in terms.items() if value in ("", "unknown")]
    if unknown:
        notes.append(f"{', '.join(unknown)}: not known; write what its licence says into its row")
    return terms
