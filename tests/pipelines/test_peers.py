"""Folders of the package diffusers-ncsn, against what its own code gave."""

import builtins
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hdzoo import AnnealedLangevinSampler, HDPipeline, HDZooError, NCSNUNetModel
from hdzoo.samplers import base

# A network of random weights in the layout of the Hub's py-img-gen/ncsn-mnist, and what version
# 0.1.0 of the package makes of it: outputs, and a chain of 4 steps at each of 10 levels.
FOLDER = Path(__file__).parents[1] / "golden" / "peer_ncsn_mnist"


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "golden.safetensors")


@pytest.fixture
def pipe() -> HDPipeline:
    pipe = HDPipeline.from_pretrained(FOLDER)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def copy(folder: Path) -> Path:
    shutil.copytree(FOLDER, folder)
    return folder


def test_network(pipe: HDPipeline, recorded: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        score = pipe.unet(recorded["in.x"], recorded["in.t"]).sample
        levels = pipe.unet.sigmas[recorded["in.t"]]
        by_sigma = pipe.unet(recorded["in.x"], levels).sample
    # Another machine's convolutions add in another order.
    assert (score - recorded["out.y"]).abs().max() <= 1e-5 * recorded["out.y"].abs().max()
    assert torch.equal(by_sigma, score)
    # Tweedie.
    denoised = recorded["in.x"] + levels.view(-1, 1, 1, 1) ** 2 * score
    with torch.no_grad():
        torch.testing.assert_close(pipe.unet.denoise(recorded["in.x"], levels), denoised)


def test_chain(
    pipe: HDPipeline, recorded: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = pipe.scheduler
    assert isinstance(sampler, AnnealedLangevinSampler)
    assert sampler.config.start == "uniform"
    # A step there is x + a/2 s + sqrt(a) z.
    alphas = torch.tensor([move.alpha for move in sampler.moves[::4]], dtype=torch.float64)
    torch.testing.assert_close(2 * alphas, recorded["step_size"].double(), rtol=1e-6, atol=0)
    noises: Iterator[torch.Tensor] = iter(recorded["chain.noise"])
    monkeypatch.setattr(base, "randn_tensor", lambda *args, **kwargs: next(noises))
    end = pipe(latents=recorded["chain.start"], output_type="latent").images
    assert next(noises, None) is None
    theirs = recorded["chain.start"]
    with torch.no_grad():
        for i, noise in enumerate(recorded["chain.noise"]):
            alpha = recorded["step_size"][i // 4]
            theirs = theirs + alpha / 2 * pipe.unet(theirs, i // 4).sample + alpha.sqrt() * noise
    # 40 steps in float32, each of which may round by 6e-8 of the largest number there.
    assert (end - theirs).abs().max() <= 1e-6 * theirs.abs().max()
    # Their processor's convolutions differ from others' by 2e-6, and so do 40 steps with them.
    assert (end - recorded["chain.end"]).abs().max() <= 5e-6 * recorded["chain.end"].abs().max()


def test_it_draws_pictures_from_a_uniform_start(pipe: HDPipeline) -> None:
    seen: list[torch.Tensor] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = pipe(1, generator=torch.Generator().manual_seed(0)).images[0]
    assert (image.size, image.mode) == ((16, 16), "L")
    assert len(seen) == 40
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1


def test_saved_it_is_ours(pipe: HDPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["unet"] == ["hdzoo", "NCSNUNetModel"]
    assert index["scheduler"] == ["hdzoo", "AnnealedLangevinSampler"]
    again = HDPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.unet.sigmas, pipe.unet.sigmas)
    assert again.scheduler.config == pipe.scheduler.config
    first, second = (
        p(2, generator=torch.Generator().manual_seed(0), output_type="latent").images
        for p in (pipe, again)
    )
    assert torch.equal(first, second)


def test_the_newer_name_and_options_of_ones_own(tmp_path: Path) -> None:
    folder = copy(tmp_path / "folder")
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index["scheduler"][1] = "AnnealedLangevinDynamicsScheduler"
    path.write_text(json.dumps(index))
    own = AnnealedLangevinSampler(sigma_max=10.0, sigma_min=0.005, steps_per_level=2)
    pipe = HDPipeline.from_pretrained(folder, scheduler=own, dtype=torch.bfloat16)
    assert pipe.scheduler is own
    assert pipe.unet.dtype == torch.bfloat16
    # The ladder is not rounded.
    assert pipe.unet.sigmas.dtype == torch.float32
    assert HDPipeline.from_pretrained(folder).scheduler.num_inference_steps == 40


def test_none_of_its_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(tmp_path / "folder")
    for name in ("pipeline_ncsn", "unet/unet_2d_ncsn", "scheduler/scheduling_ncsn"):
        (folder / f"{name}.py").write_text("import builtins\nbuiltins.was_run = True")
    monkeypatch.syspath_prepend(folder)
    HDPipeline.from_pretrained(folder)
    assert not hasattr(builtins, "was_run")
    assert not {"pipeline_ncsn", "unet_2d_ncsn", "scheduling_ncsn"} & set(sys.modules)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("unet/config.json", "{", "config.json is missing or damaged"),
        ("unet/config.json", '{"block_out_channels": [16]}', "makes no UNet2DModel"),
        ("unet/config.json", '{"sample_size": 16}', "Missing key"),
        ("unet/diffusion_pytorch_model.safetensors", "no", "cannot be read, or is damaged"),
        ("scheduler/scheduler_config.json", '{"num_annealed_steps": 2.5}', "num_annealed_steps"),
        ("scheduler/scheduler_config.json", '{"sampling_eps": -1}', "sampling_eps"),
    ],
)
def test_damaged(file: str, text: str, message: str, tmp_path: Path) -> None:
    folder = copy(tmp_path / "folder")
    (folder / file).write_text(text)
    with pytest.raises(HDZooError, match=message):
        HDPipeline.from_pretrained(folder)


def test_a_network_of_ones_own_is_told_rungs() -> None:
    network = NCSNUNetModel(
        {"block_out_channels": (8, 8), "norm_num_groups": 4, "sample_size": 8}
        | {
            "down_block_types": ("DownBlock2D",) * 2,
            "up_block_types": ("UpBlock2D",) * 2,
        },
        sigma_max=1.0,
        sigma_min=0.01,
        num_levels=3,
    )
    assert network.sigmas.tolist() == pytest.approx([1.0, 0.1, 0.01])
    with pytest.raises(HDZooError, match=r"knows only its 3 levels from 1 to 0\.01"):
        network.denoise(torch.zeros(1, 1, 8, 8), 0.5)
