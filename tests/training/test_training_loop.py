"""Pictures in, patches out, and a loop that learns, stops, and goes on."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyvips = pytest.importorskip("pyvips")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from training.__main__ import main  # noqa: E402
from training.data import (  # noqa: E402
    PatchSettings,
    PatchSource,
    credit_line,
    degrade,
    find_pictures,
    matches,
    read_credits,
    read_picture,
)
from training.degrade import RECIPES, add_noise, jpeg  # noqa: E402
from training.evaluate import luma, open_session, psnr_db, upscale_picture  # noqa: E402
from training.export import build_model, write_model  # noqa: E402
from training.network import NetworkSettings, Upscaler, Weights  # noqa: E402
from training.resample import to_bytes  # noqa: E402
from training.train import (  # noqa: E402
    Trainer,
    TrainSettings,
    learning_rate,
    restoration_loss,
)

SMALL = NetworkSettings(scale=2, features=8, convolutions=3)
PATCH = PatchSettings(scale=2, size_px=16, batch=4)


def drawing(size_px: int = 160) -> np.ndarray:
    """Discs and stripes (size, size, 3), uint8: sharp edges at every angle."""
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    discs = np.sin(60 * np.hypot(rows - 0.4, columns - 0.6)) > 0
    stripes = np.sin(50 * rows + 20 * columns) > 0
    return to_bytes(np.stack([discs, stripes, discs ^ stripes], axis=-1) * 200.0 + 20)


def trainer(seed: int = 1) -> Trainer:
    settings = TrainSettings(minutes=1, threads=1, warm_up_steps=1, seed=seed)
    return Trainer(SMALL, settings, PatchSource([degrade(drawing(), 2)], PATCH, seed))


def test_twenty_steps_lower_the_loss():
    learner = trainer()
    losses = [learner.step() for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_restored_trainer_goes_on_as_if_never_stopped():
    learner = trainer()
    for _ in range(3):
        learner.step()
    other = trainer(seed=9)
    other.restore(learner.state())
    assert other.steps == 3
    for ours, theirs in zip(other.upscaler.merged(), learner.upscaler.merged(), strict=True):
        torch.testing.assert_close(ours.kernel, theirs.kernel)
    assert other.step() == learner.step()
    with pytest.raises(ValueError, match="another network"):
        Trainer(
            NetworkSettings(features=4),
            TrainSettings(minutes=1),
            PatchSource([degrade(drawing(), 2)], PATCH, 1),
        ).restore(learner.state())


def test_learning_rate_rises_then_falls_to_its_end():
    settings = TrainSettings(minutes=1, warm_up_steps=10)
    assert learning_rate(settings, 0, 0) == pytest.approx(settings.learning_rate / 10)
    assert learning_rate(settings, 10, 0) == pytest.approx(settings.learning_rate)
    assert learning_rate(settings, 10, 1) == pytest.approx(settings.final_learning_rate)


def test_patches_are_aligned_pairs():
    source = PatchSource([degrade(drawing(), 2)], PATCH, seed=2)
    low, high = source.draw()
    assert low.shape == (4, 3, 16, 16)
    assert high.shape == (4, 3, 32, 32)
    means = high.reshape(4, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    assert np.abs(low - means).mean() < 12


def test_picture_too_small_for_a_patch_is_refused():
    with pytest.raises(ValueError, match="16 input pixels"):
        PatchSource([degrade(drawing(30), 2)], PATCH, seed=2)


def test_pictures_are_found_without_links_and_read_as_rgb(tmp_path: Path):
    grey = pyvips.Image.new_from_array(np.full((9, 12), 77, np.uint8))
    grey.write_to_file(str(tmp_path / "grey.png"))
    (tmp_path / "again.png").symlink_to(tmp_path / "grey.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert find_pictures([tmp_path]) == [tmp_path / "grey.png"]
    picture = read_picture(tmp_path / "grey.png", reduce=3)
    assert picture.shape == (3, 4, 3)
    assert (picture == 77).all()


def test_globs_match_names_and_paths():
    path = Path("/pictures/Kay/contents/5120x2880.png")
    assert matches(path, ["Bridge*", "*/Kay/*"])
    assert matches(path, ["5120*"])
    assert not matches(path, ["Kay*"])


def test_credits_name_author_and_licence():
    line = credit_line(Path("folder/seeding_by_Clements_Engelhardt.jpg"), read_credits())
    assert "Clemens Engelhardt" in line
    assert "CC0-1.0" in line
    assert "no credit" in credit_line(Path("unknown.jpg"), read_credits())


def test_luma_and_psnr_are_those_of_bt601():
    white = np.full((8, 8, 3), 255, np.uint8)
    assert luma(white) == pytest.approx(235)
    darker = white - np.uint8(10)
    assert psnr_db(darker, white, 2) == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)))
    darker[:2] = 0
    assert psnr_db(darker, white, 2) == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)))


def test_command_line_trains_goes_on_and_evaluates(tmp_path: Path, capsys):
    for name in ("seen", "unseen"):
        pyvips.Image.new_from_array(drawing(128)).write_to_file(str(tmp_path / f"{name}.png"))
    model = tmp_path / "out" / "tiny.onnx"
    command = ["train", "--data", str(tmp_path), "--hold-out", "unseen*", "--out", str(model)]
    command += ["--reduce", "1", "--patch", "16", "--batch", "2", "--threads", "1"]
    command += ["--features", "4", "--convolutions", "2", "--report-minutes", "0.01"]
    assert main([*command, "--minutes", "0.01"]) == 0
    assert main([*command, "--minutes", "0.02"]) == 0
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["name"] == "tiny"
    assert facts["scale"] == "2"
    assert "seen.png" in facts["training_data"]
    assert float(facts["psnr_luma_db"]) > 0
    assert main(["evaluate", str(model), str(tmp_path / "unseen.png")]) == 0
    assert "mean" in capsys.readouterr().out


def test_pictures_of_any_size_are_scored(tmp_path: Path):
    network = NetworkSettings(scale=1, features=4, convolutions=2, fold=2)
    model = build_model(network, Upscaler(network).merged(), {})
    session = open_session(model.SerializeToString())
    assert upscale_picture(session, drawing(64)[:37, :51]).shape == (37, 51, 3)


def test_command_line_reports_missing_pictures(tmp_path: Path):
    command = ["train", "--data", str(tmp_path), "--hold-out", "*", "--out", "model.onnx"]
    assert main(command) == 1


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_recipes_damage_patches_that_still_show_the_same(recipe: str, scale: int):
    settings = PatchSettings(scale=scale, size_px=16, batch=8, recipe=recipe)
    low, high = PatchSource([degrade(drawing(240), scale)], settings, seed=3).draw()
    assert low.shape == (8, 3, 16, 16)
    assert high.shape == (8, 3, 16 * scale, 16 * scale)
    shrunk = high.reshape(8, 3, 16, scale, 16, scale).mean(axis=(3, 5))
    assert 2 < np.abs(low - shrunk).mean() < 45
    # Blurred and noisy, a patch is still more like its own truth than like another's.
    assert np.abs(low - shrunk).mean() < np.abs(low - shrunk[::-1]).mean()


def test_noise_and_jpeg_are_as_strong_as_asked():
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert add_noise(grey, 25.0).std() == pytest.approx(25, rel=0.02)
    discs = np.repeat(drawing()[..., :1], 3, axis=2)
    coarse, fine = (np.abs(jpeg(discs, quality).astype(int) - discs).mean() for quality in (20, 95))
    assert coarse > 2 * fine > 0


def test_luma_weight_looks_at_luma_alone():
    truth = torch.zeros(1, 3, 4, 4)
    blue, grey = truth.clone(), truth + 0.1
    blue[:, 2] = 0.1
    assert restoration_loss(grey, truth, True, 1.0) == pytest.approx(0.01)
    assert restoration_loss(blue, truth, True, 1.0) == pytest.approx(0.0114**2)
    half = restoration_loss(blue, truth, True, 0.5)
    assert half == pytest.approx((0.01 / 3 + 0.0114**2) / 2)


def test_restoration_models_are_scored_against_non_local_means(tmp_path: Path, capsys):
    pyvips.Image.new_from_array(drawing(96)).write_to_file(str(tmp_path / "p.png"))
    network = NetworkSettings(scale=1, features=8, convolutions=2)
    nothing = [
        Weights(torch.zeros_like(kernel), torch.zeros_like(bias))
        for kernel, bias in Upscaler(network).merged()
    ]
    write_model(build_model(network, nothing, {}), tmp_path / "nothing.onnx")
    command = ["evaluate", str(tmp_path / "nothing.onnx"), str(tmp_path / "p.png")]
    assert main([*command, "--noise", "20", "--crop", "64"]) == 0
    header, row, _ = capsys.readouterr().out.splitlines()
    assert "NLM/dB" in header
    plain_db, model_db = (float(text) for text in row.split()[1:3])
    assert model_db == pytest.approx(20 * np.log10(255 / 20), abs=1.0)
    assert plain_db > model_db
    assert main(command) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[2]) > 100
