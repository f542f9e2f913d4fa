"""Job kinds: the params, inputs and result of each, where it runs, and the function that applies its result.

A kind is one row of `KINDS`, with its records above it. Params are what a client may set and see; inputs are what the
service adds (rows and objects of the store, as values); the result is what the handler returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shared import catalog, records
from shared.catalog.params import GenerateParams, Original, ScoreParams, TrainParams, WantedPicture
from shared.records import field

if TYPE_CHECKING:
    from shared.models import Job

P = TypeVar("P")  # params
I = TypeVar("I")  # inputs  # noqa: E741
R = TypeVar("R")  # result

MAX_CROPS = 16
LOADING = "loading the base model"  # the first stage of jobs that use one
IMPORT_OUTCOMES = ("taken", "left_out", "refused")
CROPS_WITHOUT_BOXES = 4


@dataclass(frozen=True, kw_only=True)
class JobKind(Generic[P, I, R]):
    """A kind of work. `P`, `I` and `R` are records: see `shared/records.py`."""

    name: str
    verb: str  # the present participle for people, such as "cropping" in "the project is still cropping"
    queue: str  # a name from catalog.QUEUES
    timeout_seconds: int
    handler: str  # dotted path of `run(work) -> R` in workers.handlers
    taken_by: str  # dotted path of `take(session, job, R)` in shared, called in the transaction that ends the job
    params: type[P]
    inputs: type[I]
    result: type[R]
    # The stages of the work in their order, and the size of each: its time is proportional to it.
    stages: Callable[[P, I], dict[str, float]] = lambda params, inputs: {"working": 1}
    references: Callable[[P], int] = lambda params: 0  # the most reference pictures that it may add

    def check(self, record: object, type_: type) -> None:
        """Raise `TypeError` if a record does not have the type in this kind's row."""
        if not isinstance(record, type_):
            raise TypeError(f"a {self.name} job has a {type_.__name__}, not a {type(record).__name__}")

    def params_of(self, job: Job) -> P:
        return records.read(self.params, job.params)

    def inputs_of(self, job: Job) -> I:
        return records.read(self.inputs, job.inputs)

    def result_of(self, job: Job) -> R:
        return records.read(self.result, job.result)

    def stages_of(self, params: P, inputs: I) -> list[list[Any]]:
        """The stages with work to do, as rows store them: `[[name, size], ...]`."""
        return [[name, size] for name, size in self.stages(params, inputs).items() if size]

    def references_of(self, job: Job) -> int:
        return self.references(self.params_of(job))


# --- objects in the store, in inputs and results ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOutput:
    """An object that a job has put in the store."""

    key: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile(JobOutput):
    filename: str  # for downloads


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage(JobOutput):
    width: int  # pixels
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInput:
    """A picture of a project."""

    id: str
    key: str
    sha256: str
    view: str | None = None
    framing: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraInput:
    """A LoRA and the weight at which it is applied."""

    id: str
    key: str
    sha256: str
    weight: float
    name: str = ""  # of its files, as other tools name it in a prompt


# --- upload: add a picture that a client has posted to the store --------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadParams:
    view: str | None = field(None, one_of=catalog.VIEWS)
    framing: str | None = field(None, one_of=catalog.FRAMINGS)
    tags: list[str] = field(factory=list, length=(0, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadInputs:
    key: str  # of the object that the client posted; the job deletes it


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadResult:
    image: StoredImage
    notes: list[str] = field(factory=list)  # what was ignored of the file


UPLOAD = JobKind(
    name="upload",
    verb="uploading",
    queue="cpu",
    timeout_seconds=120,
    handler="workers.handlers.upload:run",
    taken_by="shared.images:take_upload",
    params=UploadParams,
    inputs=UploadInputs,
    result=UploadResult,
    references=lambda params: 1,
)


# --- import: add the pictures of a zip ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportParams:
    pictures: int = field(bounds=(1, 10_000), help="How many the zip lists.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportInputs:
    key: str  # of the zip; the job deletes it
    words: list[str] = field(factory=list)  # of the project; captions are checked together with them


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedImage(StoredImage):
    id: str  # that the image will have
    captions: list[str] | None  # its variants; None if it has no text file
    repeats: int  # how often it is drawn in an epoch
    notes: list[str] = field(factory=list)  # what was ignored of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedFile:
    """The outcome of a file of a zip."""

    name: str
    outcome: str = field(one_of=IMPORT_OUTCOMES)
    reason: str | None = None  # why it was refused, or a remark on a picture that was added
    code: str | None = None  # if it was refused
    image_id: str | None = None  # if it was added


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    images: list[ImportedImage]
    files: list[ImportedFile]


IMPORT = JobKind(
    name="import",
    verb="importing",
    queue="cpu",
    timeout_seconds=1200,
    handler="workers.handlers.imports:run",
    taken_by="shared.images:take_import",
    params=ImportParams,
    inputs=ImportInputs,
    result=ImportResult,
    stages=lambda params, inputs: {"importing": params.pictures},
    references=lambda params: params.pictures,
)


# --- crop: make several reference pictures from one --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """One crop that a client wants."""

    box: list[int] = field(bounds=(0, 100_000), length=(4, 4), help="Left, top, right, bottom in pixels.")
    view: str | None = field(None, one_of=catalog.VIEWS)
    framing: str | None = field(None, one_of=catalog.FRAMINGS)
    tags: list[str] = field(factory=list, length=(0, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class CropParams:
    """`quadrants`: four equal parts. `boxes`: as given. `auto`: face, upper and full body, guessed from the outline."""

    mode: str = field(one_of=catalog.CROP_MODES)
    boxes: list[Box] = field(factory=list, length=(0, MAX_CROPS))
    keep_source: bool = field(False, help="Keep the picture itself as a reference too.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CropInputs:
    image: ImageInput
    base_model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CutImage(StoredImage):
    box: list[int]  # left, top, right, bottom in pixels of the picture that it was cut from
    view: str | None
    framing: str | None
    tags: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class CropResult:
    crops: list[CutImage]


CROP = JobKind(
    name="crop",
    verb="cropping",
    queue="cpu",
    timeout_seconds=120,
    handler="workers.handlers.crop:run",
    taken_by="shared.images:take_crops",
    params=CropParams,
    inputs=CropInputs,
    result=CropResult,
    references=lambda params: len(params.boxes) or CROPS_WITHOUT_BOXES,
)


# --- score: choose among candidates ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreInputs:
    references: list[ImageInput]
    candidates: list[ImageInput]
    quota: dict[str, int]  # pictures of each view that may be accepted
    feature_tags: list[str]
    base_model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreResult:
    scores: dict[str, dict[str, float]]  # by image id: `identity`, `shows_view` and the scorer's details
    accepted: list[str]  # image ids


SCORE = JobKind(
    name="score",
    verb="scoring",
    queue="cpu",
    timeout_seconds=600,
    handler="workers.handlers.score:run",
    taken_by="shared.rounds:take_scores",
    params=ScoreParams,
    inputs=ScoreInputs,
    result=ScoreResult,
    stages=lambda params, inputs: {"scoring": len(inputs.candidates)},
)


# --- train: a LoRA -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetEntry:
    """A picture of a training, with the exact captions."""

    image_id: str
    key: str
    sha256: str
    captions: list[str]
    repeats: int = 1  # how often it is drawn in an epoch
    original: tuple[int, int] | None = None  # width and height before the service enlarged it; None: as it is stored


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainInputs:
    base_model: str
    dataset: list[DatasetEntry]
    name: str  # of the LoRA, and so of its files
    trigger_word: str
    subject_tags: list[str]
    prompt_tags: list[str]
    views: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the licence of a base model allows, for a LoRA that was trained on it."""

    license: str
    commercial_use: str  # one of COMMERCIAL_USES
    hosting: str  # one of HOSTINGS
    base_sha256: str  # of the base model


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainMetrics:
    loss: float  # mean of the last tenth of the steps
    curve: list[tuple[int, float]]  # [[step, loss], ...]
    seconds: float
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    train_steps: int
    metrics: TrainMetrics
    files: dict[str, StoredFile]  # by name of LORA_FILES
    terms: Terms | None = None  # None in results of an earlier version


LORA_FILES = ("kohya", "diffusers", "sidecar", "preview")  # LoRAs of older versions have the first two


TRAIN = JobKind(
    name="train",
    verb="training",
    queue="gpu",
    timeout_seconds=7200,
    handler="workers.handlers.train:run",
    taken_by="shared.rounds:take_lora",
    params=TrainParams,
    inputs=TrainInputs,
    result=TrainResult,
    stages=lambda params, inputs: train_stages(params, len(inputs.dataset)),
)


def train_stages(params: TrainParams, images: int) -> dict[str, float]:
    """The stages of a training on so many images. With prior pictures, each step has a second batch."""
    area = float((params.resolution or 1) ** 2)
    batches = params.train_steps * params.gradient_accumulation * (2 if params.prior_images else 1)
    return {
        LOADING: 1,
        "drawing others": params.prior_images * area,
        "encoding": (images + params.prior_images) * area,
        "training": batches * params.batch_size * area,
        "drawing the preview": area,
    }


# --- generate: draw pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateInputs:
    base_model: str
    pictures: list[WantedPicture]
    loras: list[LoraInput]

    @property
    def originals(self) -> list[Original]:
        """What pictures are drawn from, once for each of them."""
        return [picture.original for picture in self.pictures if picture.original]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnImage(StoredImage):
    prompt: str
    seed: int
    view: str | None
    framing: str | None
    parent_id: str | None = None  # the image that it was drawn from


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateResult:
    images: list[DrawnImage]


GENERATE = JobKind(
    name="generate",
    verb="drawing",
    queue="gpu",
    timeout_seconds=7200,
    handler="workers.handlers.generate:run",
    taken_by="shared.rounds:take_drawn",
    params=GenerateParams,
    inputs=GenerateInputs,
    result=GenerateResult,
    stages=lambda params, inputs: generate_stages(params, len(inputs.pictures), inputs.originals),
)


def generate_stages(params: GenerateParams, pictures: int, originals: Sequence[Original] = ()) -> dict[str, float]:
    """The stages of drawing so many pictures, some of them from originals, which have sizes of their own."""
    area = float((params.width or 1) * (params.height or 1))
    areas = (pictures - len(originals)) * area + sum(each.strength * each.width * each.height for each in originals)
    return {LOADING: 1, "generating": areas * (params.inference_steps or 1)}


KINDS: dict[str, JobKind[Any, Any, Any]] = {kind.name: kind for kind in (UPLOAD, IMPORT, CROP, SCORE, TRAIN, GENERATE)}
