"""The GAN: nets, training that survives kills, and the faces it writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from mien._emotions import Emotion
from mien._errors import DataError, OutputError
from mien._output import protect_files
from mien.lab.data import FaceSet, Split
from mien.lab.data.custom import decode_face
from mien.lab.files import load_json, load_state, save_state
from mien.lab.gan.evaluate import appearance, kernel_distance
from mien.lab.gan.synthesize import (
    SynthesisOptions,
    choose_emotions,
    gan_recipe,
    generate_faces,
    synthesize,
    write_faces,
)
from mien.lab.gan.train import Discriminator, GanConfig, Generator, diff_augment, flip_half, sampling_weights, train_gan
from support.synthetic_faces import cartoon_set

TINY = GanConfig(batch_size=16, noise=8, widths=(16, 8, 8), discriminator_widths=(8, 8, 16, 16), precision="32-true")


@pytest.fixture(scope="module")
def cartoons() -> FaceSet:
    return cartoon_set(per_split=(126, 56, 70))


@pytest.fixture(scope="module")
def training(cartoons: FaceSet) -> FaceSet:
    return cartoons.split(Split.TRAINING)


def tensors(state: Any) -> list[torch.Tensor]:
    """Every tensor of a checkpoint, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in inner for tensor in tensors(value)]


def same(first: Path, second: Path) -> bool:
    a, b = (tensors(torch.load(path / "checkpoint.pt", weights_only=True)) for path in (first, second))
    return len(a) == len(b) > 50 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_nets_fit_two_cores() -> None:
    generator, discriminator = Generator(7), Discriminator(7)
    labels = torch.arange(7)
    with FlopCounterMode(display=False) as counter:
        made = generator(torch.randn(7, generator.noise), labels)
        scores = discriminator(made, labels)
    assert made.shape == (7, 1, 48, 48)
    assert made.abs().max() <= 1
    assert scores.shape == (7,)
    assert counter.get_total_flops() / 2 / 7 < 20e6  # multiply-adds a face, both nets
    scores.sum().backward()
    for net in (generator, discriminator):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_class_changes_the_face_and_the_score() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(7).eval(), Discriminator(7).eval()
    z = torch.randn(1, generator.noise).expand(7, -1)
    made = generator(z, torch.arange(7))
    assert torch.cdist(made.flatten(1), made.flatten(1)).add(torch.eye(7)).min() > 0.1
    assert len(discriminator(made[:1].expand(7, -1, -1, -1), torch.arange(7)).unique()) == 7


def test_diff_augment_is_differentiable_and_changes_brightness_and_position() -> None:
    x = torch.linspace(-0.5, 0.5, 48).expand(32, 1, 48, 48).clone().requires_grad_()
    changed = diff_augment(x, torch.Generator().manual_seed(0))
    again = diff_augment(x, torch.Generator().manual_seed(0))
    assert changed.shape == x.shape
    assert torch.equal(changed, again)
    assert changed.detach().mean(dim=(1, 2, 3)).std() > 0.1  # light
    holes = (changed == 0).float().mean(dim=(1, 2, 3))
    assert (holes > 0.01).all()  # a cut-out and the border that moved in
    assert (holes < 0.5).all()
    changed.sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.5


@pytest.fixture(scope="module")
def begun(training: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GAN of one step: no test may change it."""
    folder = tmp_path_factory.mktemp("begun")
    train_gan(training, folder, steps=1, config=TINY)
    return folder


@pytest.mark.parametrize("wrong", [None, -5, "x", [1], {"a": 1}])
def test_a_wrong_value_in_a_checkpoint_is_one_clear_line(
    wrong: object, begun: Path, training: FaceSet, tmp_path: Path
) -> None:
    state = load_state(begun / "checkpoint.pt")
    for key in ("config", "generator", "average_steps", "step", "optimizers", "history"):
        save_state(tmp_path / "checkpoint.pt", state | {key: wrong})
        with pytest.raises(DataError, match=r"damaged|another training"):
            train_gan(training, tmp_path, steps=1, config=TINY)


def test_about_half_of_the_images_are_mirrored() -> None:
    x = torch.arange(48.0).expand(400, 1, 48, 48)
    turned = flip_half(x, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 47
    assert 150 < int(turned.sum()) < 250


def test_a_killed_training_ends_with_the_same_bits(
    training: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.lab.gan.train.REPORT_EVERY", 4)
    whole = train_gan(training, tmp_path / "whole", steps=12, config=TINY)
    monkeypatch.setattr("mien.lab.gan.train.SAVE_EVERY", 0.0)

    def die(_stage: str, done: int = 0, _total: int = 0) -> None:
        if done == 8:  # reported before it is saved: the checkpoint is of step 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gan(training, tmp_path / "killed", steps=12, config=TINY, progress=die)
    assert torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"] == 4
    resumed = train_gan(training, tmp_path / "killed", steps=12, config=TINY)
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert torch.equal(generate_faces(whole.averaged, 1, 5), generate_faces(resumed.averaged, 1, 5))
    losses = [[r["loss"] for r in gan.history] for gan in (whole, resumed)]
    assert losses[0] == losses[1]


def test_another_seed_is_another_training(training: FaceSet, tmp_path: Path) -> None:
    train_gan(training, tmp_path / "0", steps=3, config=TINY)
    other = replace(TINY, seed=1)
    train_gan(training, tmp_path / "1", steps=3, config=other)
    assert not same(tmp_path / "0", tmp_path / "1")
    with pytest.raises(DataError, match="another training \\(its config differ\\)"):
        train_gan(training, tmp_path / "0", steps=3, config=other)
    with pytest.raises(DataError, match="another training \\(its faces differ\\)"):
        train_gan(training.select(torch.arange(80)), tmp_path / "0", steps=3, config=TINY)


def test_a_finished_training_is_reused_and_the_time_limit_stops_with_a_checkpoint(
    training: FaceSet, tmp_path: Path
) -> None:
    begun = train_gan(training, tmp_path, steps=5, config=TINY)
    reused = train_gan(training, tmp_path, steps=3, config=TINY, time_limit=0)
    assert begun.step == reused.step == 5
    assert train_gan(training, tmp_path, steps=50, config=TINY, time_limit=0).step == 5
    assert train_gan(training, tmp_path, steps=10, config=TINY).step == 10


def test_rare_classes_are_drawn_more_often_than_they_occur(training: FaceSet) -> None:
    rare = training.select((training.labels != 1) | (torch.cumsum(training.labels == 1, 0) <= 4))
    draw = sampling_weights(rare, 0.75)
    share = torch.stack([draw[rare.labels == c].sum() for c in range(7)]) / draw.sum()
    assert share[1] == pytest.approx(4**0.25 / (4**0.25 + 6 * 18**0.25), rel=1e-4)


def test_the_training_improves_the_faces(training: FaceSet, tmp_path: Path) -> None:
    """After eighty steps the made cartoons are nearer to real ones than those of the untrained generator."""
    config = replace(TINY, lr=2e-3, discriminator_lr=4e-3, ema_decay=0.9)
    first = generate_faces(train_gan(training, tmp_path / "0", steps=1, config=config).averaged, 6, 64)
    last = generate_faces(train_gan(training, tmp_path / "1", steps=80, config=config).averaged, 6, 64)
    real = appearance(training.images)
    before, after = (kernel_distance(appearance(made) * 20, real * 20, halves=0).value for made in (first, last))
    assert after < 0.5 * before


def test_faces_of_a_seed_are_the_same_for_any_count() -> None:
    generator = Generator(7, noise=8, widths=(16, 8, 8)).eval()
    made = generate_faces(generator, 1, 300, seed=3)
    assert made.shape == (300, 48, 48)
    assert made.dtype == torch.uint8
    assert torch.equal(made[:7], generate_faces(generator, 1, 7, seed=3)[:7])
    assert not torch.equal(made, generate_faces(generator, 1, 300, seed=4))
    assert not torch.equal(made[0], generate_faces(generator, 2, 1, seed=3)[0])


def test_a_written_set_replaces_only_what_mien_made(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (12, 48, 48), dtype=torch.uint8)
    write_faces(images, tmp_path, Emotion.DISGUST)
    write_faces(images[:3], tmp_path, Emotion.DISGUST)
    assert [p.name for p in sorted((tmp_path / "disgust").iterdir())] == ["00001.png", "00002.png", "00003.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "disgust" / "00002.png")), images[1].numpy())
    (tmp_path / "disgust" / "aunt.png").touch()
    with pytest.raises(OutputError, match=r"aunt\.png"):
        write_faces(images, tmp_path, Emotion.DISGUST)
    assert (tmp_path / "disgust" / "aunt.png").exists()


def test_synthesize_writes_faces_evaluation_and_sheet(cartoons: FaceSet, tmp_path: Path) -> None:
    options = SynthesisOptions((Emotion.DISGUST, Emotion.FEAR), 9, steps=4, config=TINY)
    reports: list[tuple[object, ...]] = []
    evaluation = synthesize(options, cartoons, tmp_path, progress=lambda *report: reports.append(report))
    assert load_json(tmp_path / "evaluation.json") == evaluation
    assert [len(list((tmp_path / e).glob("*.png"))) for e in ("disgust", "fear")] == [9, 9]
    assert evaluation["emotions"]["disgust"]["training"] == 18
    assert evaluation["steps"] == 4
    with Image.open(tmp_path / "contact.png") as sheet:
        assert sheet.height > 2 * 6 * 72
        assert np.asarray(sheet).std() > 20
    assert reports[0] == ("training the GAN", 4, 4)


def test_impossible_syntheses_are_refused(cartoons: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown emotion 'disgusst'; did you mean 'disgust'"):
        choose_emotions(["disgusst"], gan_recipe())
    assert choose_emotions(["fear", "disgust", "fear"], gan_recipe()) == (Emotion.FEAR, Emotion.DISGUST)
    few = cartoons.select((cartoons.labels != 1) | (cartoons.usage != 0))
    with pytest.raises(DataError, match="0 Training faces of disgust are too few"):
        synthesize(SynthesisOptions((Emotion.DISGUST,), 9, config=TINY), few, tmp_path)
    alone = cartoons.split(Split.TRAINING)
    with pytest.raises(DataError, match="0 PublicTest faces are too few"):
        synthesize(SynthesisOptions((Emotion.DISGUST,), 9, steps=1, config=TINY), alone, tmp_path)
    large = replace(cartoons, images=cartoons.images.repeat_interleave(2, 1).repeat_interleave(2, 2))
    with pytest.raises(DataError, match="96 pixels a side; 48 are needed"):
        synthesize(SynthesisOptions((Emotion.DISGUST,), 9, steps=1, config=TINY), large, tmp_path)


@pytest.mark.parametrize("name", ["contact.png", "evaluation.json", "disgust/aunt.png"])
def test_a_foreign_output_is_refused_before_training(name: str, cartoons: FaceSet, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("of another program")
    options = SynthesisOptions((Emotion.FEAR, Emotion.DISGUST), 9, steps=1, config=TINY)
    with protect_files([]), pytest.raises(OutputError, match="not written by mien"):
        synthesize(options, cartoons, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


def test_a_folder_that_cannot_be_written_raises_before_training(training: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        train_gan(training, tmp_path / "file" / "run", steps=1, config=TINY)


def test_leaked_faces_are_not_trained_on(cartoons: FaceSet, tmp_path: Path) -> None:
    """A training row whose pixels also occur in PublicTest is not a training face of the GAN."""
    images = cartoons.images.clone()
    public = int((cartoons.usage == 1).nonzero()[0])
    same_class = int(((cartoons.usage == 0) & (cartoons.labels == 1)).nonzero()[0])
    images[same_class] = images[public]
    evaluation = synthesize(
        SynthesisOptions((Emotion.DISGUST,), 8, steps=1, config=TINY), replace(cartoons, images=images), tmp_path
    )
    assert evaluation["emotions"]["disgust"]["training"] == 17


def test_every_flipped_bit_of_a_face_is_refused_or_changes_no_pixel(cartoons: FaceSet, tmp_path: Path) -> None:
    write_faces(cartoons.images[:1], tmp_path, Emotion.SAD)
    content = (tmp_path / "sad" / "00001.png").read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert (decode_face(bytes(flipped), 48, where="") == cartoons.images[0].numpy()).all()
        except DataError:
            refused += 1
    assert refused > 0.9 * 8 * len(content) / 7
