"""A training in small: every stage runs, resumes, learns, and what comes out is a pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from chibi_lab.agreement import FORM, Agreement, agreement, draw
from chibi_lab.captions import caption_tags, invented_name
from chibi_lab.critic import answers
from chibi_lab.following import generate, load_pipeline
from chibi_lab.judge import Judge
from chibi_lab.labels import CARD, HEADS, HERS, UNKNOWN, labels
from chibi_lab.loop import Loop, learning_rate
from chibi_lab.muon import Muon, orthogonal
from chibi_lab.text import NO_TAG, sample_record, targets, text_batch
from chibi_lab.tokenizer import TagEncoder, make_tokenizer
from chibi_lab.train import BASE, CHECKPOINT, Run
from chibi_lab.world import all_tags
from models.chibi.reader import Reader, feature_tags, identity, readings, shot_tags
from tests.chibi_lab.copies import one_copy, stacks

TINY = """
seed = 1
[data]
size = 32
shards = 2
workers = 1
shard = 24
held_out = 8
[vae]
channels = [16, 16, 16, 16]
latent_channels = 4
batch = 4
crop = 32
steps = 12
learning_rate = 1.0
decay = 0.5
decoder_steps = 2
kl_weight = 1e-5
centre_weight = 1e-2
[text]
width = 32
layers = 1
heads = 2
steps = 12
batch = 8
learning_rate = 1.0
[critic]
steps = 12
batch = 8
learning_rate = 1.0
[unet]
channels = [16, 32, 32]
heads = 2
batch = 8
steps = 16
learning_rate = 1.0
decay = 0.35
ema = 0.9
caption_dropout = 0.1
critic_weight = 0.01
[reader]
steps = 4
batch = 8
learning_rate = 1.0
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A run through all stages that is stopped once in the middle of the UNet."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "tiny.toml"
    config.write_text(TINY.replace("steps = 16", "steps = 8"))
    first = Run(config, folder)
    for stage in ("data", "tokenizer", "text", "vae", "latents", "decoder", "critic", "reader", "unet"):
        getattr(first, stage)()
    config.write_text(TINY)
    second = Run(config, folder, out=folder / "out", gate=0.0)
    for stage in ("unet", "follow", "export"):
        getattr(second, stage)()
    return second


def figures(run: Run, stage: str) -> list[dict]:
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.slow
def test_a_stopped_training_goes_on_where_it_was(trained):
    assert [line["step"] for line in figures(trained, "unet")] == [8, 16]


@pytest.mark.slow
def test_losses_fall(trained):
    first, last = figures(trained, "unet")
    assert last["loss"] < first["loss"]


@pytest.mark.slow
def test_the_unet_hears_the_critic_only_of_what_was_asked(trained):
    critic = trained.load_critic()
    latents, records = trained.encoded()
    z, wanted = latents[:4].float().requires_grad_(), answers(records[:4])
    wanted[0] = UNKNOWN  # a picture whose caption was left out
    blame = critic.blame(z, wanted)
    assert blame[0] == 0
    assert (blame[1:] > 0).all()
    blame.sum().backward()
    assert [bool(gradient.abs().sum() > 0) for gradient in z.grad] == [False, True, True, True]
    assert not any(p.requires_grad for p in critic.parameters())


@pytest.mark.slow
def test_what_is_exported_is_a_plain_pipeline_that_draws(trained):
    pictures = generate(load_pipeline(trained.out / BASE), ["1girl, solo, red dress", "eiei21girl, from behind"])
    assert pictures.shape == (2, 32, 32, 3)
    assert (trained.out / BASE / "sheet.png").exists()
    keys = load_file(trained.out / BASE / "text_encoder/model.safetensors")
    assert all(key.startswith("text_model.") for key in keys)  # as transformers 4 looks for them
    shipped = load_pipeline(trained.out / BASE).text_encoder
    assert torch.equal(weights(shipped), weights(trained.load_text()).half().float())
    assert "| hair |" in (trained.out / BASE / "README.md").read_text()
    assert str(trained.folder) not in (trained.out / BASE / "unet" / "config.json").read_text()


@pytest.mark.slow
def test_the_judge_is_held_against_what_a_person_saw(trained, tmp_path):
    draw(tmp_path, trained.out / BASE, count=3)
    judge = Judge.load(trained.folder / "judge")
    form = json.loads((tmp_path / FORM).read_text())
    first = judge.read(np.asarray(Image.open(tmp_path / "000.png"))[None])["view"].argmax()
    form["pictures"]["000.png"]["view"] = HEADS["view"][first]
    form["pictures"]["001.png"]["hair"] = "plaid"
    (tmp_path / FORM).write_text(json.dumps(form))
    with pytest.raises(ValueError, match=r"hair can't be .*plaid"):
        agreement(judge, tmp_path)
    form["pictures"]["001.png"]["hair"] = ""
    (tmp_path / FORM).write_text(json.dumps(form))
    found = agreement(judge, tmp_path)
    assert found["view"] == Agreement(1, 1)
    assert found["hair"].asked == 0


@pytest.mark.slow
def test_a_model_below_the_gate_does_not_ship(trained):
    strict = Run(trained.config_path, trained.folder, out=trained.folder / "elsewhere", gate=1.01)
    with pytest.raises(SystemExit, match="below the gate"):
        strict.export()
    assert not (trained.folder / "elsewhere").exists()


@pytest.mark.slow
def test_a_training_can_begin_from_what_was_shipped(trained):
    again = Run(trained.config_path, trained.folder / "again", start=trained.out / BASE)
    again.tokenizer()
    again.text()
    assert torch.equal(weights(again.load_text()), weights(trained.load_text()).half().float())
    assert torch.equal(weights(again.new_vae()), weights(trained.load_vae()).half().float())
    assert weights(again.new_unet()).dtype == torch.float32


@pytest.mark.slow
def test_a_checkpoint_holds_every_part_there_is(trained):
    trained.checkpoint()
    elsewhere = Run(trained.config_path, trained.folder / "other", start=trained.out / CHECKPOINT)
    assert all(elsewhere.started(part) for part in ("tokenizer", "text_encoder", "vae", "unet"))
    assert Run(trained.config_path, trained.folder / "other", start=trained.folder).started("vae") is None


@pytest.mark.slow
def test_readers_of_both_kinds_are_written_and_read(trained):
    for kind in (Reader, Judge):
        read = kind.load(trained.folder / kind.kind).read(np.zeros((2, 64, 64, 3), np.uint8))
        assert set(read) == set(HEADS)
        assert torch.allclose(read["hair"].sum(1), torch.ones(2), atol=1e-4)


def reading(**values: str) -> dict[str, tuple[str, float]]:
    return {head: (values.get(head, words[0]), 0.9) for head, words in HEADS.items()}


def test_what_was_read_becomes_tags():
    seen = reading(
        hair="blonde", hair_style="short hair", eyes="yellow", ears="fox ears", outfit="dress", outfit_color="red",
        face="scar", head_extra="goggles", held="sword", footwear="boots", footwear_color="brown",
    )  # fmt: skip
    assert set(feature_tags(CARD, seen)) == {
        "blonde hair", "short hair", "yellow eyes", "fox ears", "red dress", "scar on face", "goggles on head",
        "holding sword", "brown boots",
    }  # fmt: skip
    assert "blonde hair" not in feature_tags(CARD, seen | {"hair_style": ("bald", 0.9)})
    assert "blue robot" in feature_tags(CARD, seen | {"species": ("robot", 0.9), "robot_color": ("blue", 0.9)})
    assert "yellow eyes" not in feature_tags(CARD, seen | {"view": ("behind", 0.9)})
    assert "blonde hair" not in feature_tags(CARD, seen | {"hair": ("blonde", 0.3)})
    assert set(shot_tags(CARD, seen)) == {
        "looking at viewer", "portrait", "standing", "cel shading", "white background",
    }  # fmt: skip


def test_every_picture_is_read_for_itself():
    reader = Reader(HEADS)
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    alone = readings(reader, pictures[1:2])[0]
    assert {head: value for head, (value, _) in readings(reader, pictures)[1].items()} == {
        head: value for head, (value, _) in alone.items()
    }


def test_a_mirror_image_is_read_with_its_sides_changed():
    """What a reader says of a picture and of its mirror image is the same, but for left and right."""
    torch.manual_seed(0)
    reader = Reader({"held_side": ("left", "right", "both"), "hair": ("red", "blue")})
    pictures = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    seen, turned = reader.read(pictures), reader.read(pictures[:, :, ::-1].copy())
    assert torch.allclose(seen["held_side"], turned["held_side"][:, [1, 0, 2]], atol=1e-5)
    assert torch.allclose(seen["hair"], turned["hair"], atol=1e-5)
    assert (seen["held_side"][:, 0] - seen["held_side"][:, 1]).abs().min() > 1e-4


def test_copies_that_share_the_work_come_to_what_one_does(tmp_path):
    torch.multiprocessing.spawn(one_copy, (str(tmp_path),), nprocs=2)
    alone = [orthogonal(stack) for stack in stacks()]
    for rank in range(2):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.allclose(a, b, atol=1e-2) for a, b in zip(alone, shared, strict=True))


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in ("blonde", "kimono", "twintails", "watercolor"):
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
    encode = TagEncoder(tokenizer)
    assert encode(["1girl", "solo", "from side"])[:9] == tokenizer("1girl, solo, from side").input_ids[:9]


def test_where_each_tag_ends_is_known(tokenizer):
    ids, ends = TagEncoder(tokenizer).with_ends(["1girl", "red dress", "blue boots"])
    words = [tokenizer.decode([ids[end]]).strip() for end in ends]
    assert words[1:] == ["dress", "boots"]
    assert len(ends) == 3


def test_of_each_tag_its_own_token_and_the_comma_after_it_are_asked(tokenizer):
    batch = text_batch(TagEncoder(tokenizer), 8, (1, 2))
    asked = batch.tag_at != NO_TAG
    assert 2 * 8 * 4 < asked.sum() < 2 * 8 * 30
    assert asked[:, 1:].any()
    assert not asked[:, 0].any()


def test_unknown_words_are_harmless_and_distinct(tokenizer):
    ids = [tokenizer(word, add_special_tokens=False).input_ids for word in ("eiei21girl", "zürich ♥ 東", "mumu7")]
    assert all(0 < len(i) < 20 for i in ids)
    assert len({tuple(i) for i in ids}) == 3


def test_invented_names_say_nothing_but_their_letters():
    rng = np.random.default_rng(0)
    name = invented_name(rng)
    assert name not in all_tags()
    assert targets([name])[: len(all_tags())].sum() == 0
    assert targets([name]).sum() > 0


def test_captions_are_many_but_true():
    rng = np.random.default_rng(0)
    record = sample_record(rng)
    captions = [caption_tags(record, rng) for _ in range(20)]
    assert len({tuple(c) for c in captions}) > 10
    assert all("1girl" in c[:2] for c in captions)


def test_a_reader_is_not_asked_what_a_picture_does_not_show():
    rng = np.random.default_rng(4)
    records = [sample_record(rng) for _ in range(60)]
    wanted = labels(records)
    for i, record in enumerate(records):
        if "eyes" not in record.seen or record.shot.style == "sketch":
            assert wanted["eyes"][i] == UNKNOWN
        else:
            assert HEADS["eyes"][wanted["eyes"][i]] == record.character.eyes


def test_muon_steps_are_nearly_orthogonal():
    step = orthogonal(torch.randn(16, 40, generator=torch.Generator().manual_seed(0)))
    assert (torch.linalg.svdvals(step) - 1).abs().max() < 0.4


def test_muon_learns():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    optimizer, x = Muon(model), torch.randn(64, 16)
    losses = []
    for _ in range(40):
        loss = (model(x) - x.roll(1, 1)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_loop_saves_and_resumes(tmp_path: Path):
    def make(steps: list[int]) -> tuple[Loop, torch.nn.Linear]:
        layer = torch.nn.Linear(1, 1)

        def step_fn(step: int) -> dict[str, float]:
            steps.append(step)
            with torch.no_grad():
                layer.weight.fill_(step)
            return {"loss": float(step)}

        return Loop(tmp_path, "counting", {"layer": layer}, step_fn), layer

    steps: list[int] = []
    make(steps)[0].run(3)
    loop, layer = make(steps)
    assert loop.resume() == 3
    assert layer.weight.item() == 2
    loop.run(5)
    assert steps == [0, 1, 2, 3, 4]


def test_the_rate_rises_stays_and_falls():
    rates = [learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] < 0.1
    assert rates[300] == rates[600] == 2.0
    assert rates[-1] < 0.1


class Mirror:
    """Reads what the pictures are labelled with: pixel (0, 0, 0) is an index into `people`."""

    def __init__(self, people: list[dict[str, int]]):
        self.people = people

    def read(self, pictures: np.ndarray) -> dict[str, torch.Tensor]:
        shown = [self.people[int(picture[0, 0, 0])] for picture in pictures]
        return {
            head: torch.stack([torch.eye(len(words))[person[head]] * 0.9 + 0.1 / len(words) for person in shown])
            for head, words in HEADS.items()
        }


def test_she_is_told_from_her_double():
    her = dict.fromkeys(HEADS, 0)
    mirror = Mirror([her, her | {"hair": 3}, {head: len(words) - 1 for head, words in HEADS.items()}])
    pictures = np.stack([np.full((1, 1, 3), i, np.uint8) for i in range(3)])
    same, double, stranger = identity(mirror.read(pictures[[0, 0]]), mirror.read(pictures), HERS)
    assert same > 0.8
    assert 0.2 < double < 0.7 * same
    assert stranger < 0.01
    assert set(HERS) <= set(HEADS)
