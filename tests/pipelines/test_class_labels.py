"""Networks that draw images of a class."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hdzoo import (
    AnnealedLangevinSampler,
    HDInpaintPipeline,
    HDPipeline,
    HDZooError,
    LangevinSampler,
)
from hdzoo.cli import app
from hdzoo.generation.generate import generate
from hdzoo.pipelines.generators import sample_generators
from hdzoo.sampling import draw

CLASSES = 3


def unet(**options: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        **options,
    ).eval()


def pipeline(cls: Any = HDPipeline, **options: Any) -> Any:
    sampler = AnnealedLangevinSampler.from_config(
        diffusers.DDPMScheduler().config, num_levels=3, steps_per_level=1
    )
    pipe = cls(unet(**options or {"num_class_embeds": CLASSES}), sampler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def labels_seen(pipe: Any) -> list[Any]:
    seen: list[Any] = []
    pipe.unet.register_forward_pre_hook(
        lambda _, args, given: seen.append(given.get("class_labels")), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize(
    "labels", [2, [2, 0], (2, 0), torch.tensor([2, 0]), np.array([2, 0]), np.int64(2)], ids=str
)
def test_the_network_is_told_the_class_of_each(labels: Any) -> None:
    pipe = pipeline()
    seen = labels_seen(pipe)
    found = pipe(
        2, 3, sample_generators(0, range(2)), class_labels=labels, output_type="latent"
    ).images
    expected = [2, 2] if np.ndim(labels) == 0 else [2, 0]
    assert [given.tolist() for given in seen] == [expected] * 3
    # Each is the one of its class alone; another class is another image.
    for i, label in enumerate(expected):
        alone = [
            pipe(1, 3, sample_generators(0, [i]), class_labels=k, output_type="latent").images[0]
            for k in range(CLASSES)
        ]
        torch.testing.assert_close(found[i], alone[label], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(alone[label], alone[(label + 1) % CLASSES], rtol=1e-2, atol=1e-2)


def test_inpainting_and_what_a_single_level_starts_from() -> None:
    pipe = pipeline(HDInpaintPipeline)
    seen = labels_seen(pipe)
    black = torch.zeros(1, 1, 8, 8)
    pipe(black, 1 - black, num_samples_per_image=2, num_inference_steps=3, class_labels=[0, 2])
    assert [given.tolist() for given in seen] == [[0, 2]] * 3
    pipe = pipeline()
    pipe.starter = pipe.scheduler
    pipe.scheduler = LangevinSampler.from_config(pipe.scheduler.config, num_steps=2)
    seen = labels_seen(pipe)
    pipe(2, 2, class_labels=[1, 0])
    assert {tuple(given.tolist()) for given in seen} == {(1, 0)}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "UNet2DModel draws images of a class; give class_labels, .* from 0 to 2"),
        (3, "class_labels are 3; they must be whole numbers from 0 to 2"),
        (-1, "class_labels are -1"),
        (1.0, r"class_labels are 1\.0"),
        (True, "class_labels are True"),
        ([0, 1, 2], "3 class_labels are given for 2 samples"),
        ([[0, 1], [1, 2]], "whole numbers from 0 to 2"),
        ("cat", "class_labels are 'cat'; give whole numbers"),
    ],
)
def test_wrong_labels_are_refused_before_anything_is_drawn(labels: Any, message: str) -> None:
    pipe = pipeline()
    seen = labels_seen(pipe)
    with pytest.raises(HDZooError, match=message):
        pipe(2, 3, class_labels=labels)
    assert not seen


def test_networks_without_classes_and_with_embeddings_of_their_own() -> None:
    with pytest.raises(HDZooError, match="class_labels are given, and UNet2DModel knows no class"):
        pipeline(add_attention=True)(1, 3, class_labels=0)
    # What is embedded is as long as the embedding of the time: four times the first width.
    pipe = pipeline(class_embed_type="identity")
    assert pipe(1, 3, class_labels=torch.zeros(1, 32), output_type="latent").images.isfinite().all()
    with pytest.raises(HDZooError, match=r"give class_labels, .* what 'identity' embeds"):
        pipe(1, 3)
    assert pipeline(class_embed_type="timestep")(1, 3, class_labels=[7]).images


def test_sets_have_the_classes_evenly_and_say_so(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.save_pretrained(tmp_path / "model")
    made = [np.array(image) for image in draw(pipe, 4, num_inference_steps=3, batch_size=2)]
    for i, image in enumerate(made):
        alone = pipe(1, 3, sample_generators(0, [i]), class_labels=i % CLASSES).images[0]
        assert abs(image.astype(int) - np.array(alone)).max() <= 1
    options = {"num_inference_steps": 3, "chunk_size": 2}
    generate(tmp_path / "model", tmp_path / "set", 4, **options)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["class_labels"] == "index modulo 3"
    with pytest.raises(HDZooError, match="class_labels was 'index modulo 3' and is 1"):
        generate(tmp_path / "model", tmp_path / "set", 4, class_label=1, **options)
    with pytest.raises(HDZooError, match="class_labels are"):
        generate(tmp_path / "model", tmp_path / "other", 2, class_label=3, **options)
    command = ["sample", str(tmp_path / "model"), "-n", "1", "-t", "3", "--class-label", "2"]
    done = CliRunner().invoke(app, [*command, "-O", str(tmp_path / "grid.png")])
    assert done.exit_code == 0, done.output
    from PIL import Image

    with Image.open(tmp_path / "grid.png") as grid:
        assert json.loads(grid.text["hdzoo"])["class_labels"] == 2
