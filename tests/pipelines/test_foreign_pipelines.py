"""Small random networks of diffusers' own classes: run, saved, loaded, and what is refused."""

import inspect
import json
import math
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler
from PIL import Image
from typer.testing import CliRunner

from hdzoo import HDPipeline, HDZooError, get_sampler
from hdzoo.builtin import hdzoo_samplers
from hdzoo.cli import app
from hdzoo.samplers.consistent import ConsistentAnnealedSampler

CORE = sorted(hdzoo_samplers())
STEPS = 12


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unet(time_embedding_type: str = "positional", channels: int = 3) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        time_embedding_type=time_embedding_type,
    ).eval()


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ladder(name: str) -> dict[str, Any]:
    return {"num_levels": 4} if "num_levels" in get_sampler(name)().config else {}


# ---- other people's folders as an HDPipeline -------------------------------------------------


class Recorder(torch.nn.Module):
    """A network's inputs and timesteps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, float]] = []
        network.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, _: Any, args: Any, kwargs: Any) -> None:
        self.seen.append((args[0].clone(), float(args[1])))


FOLDERS: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    # The pipeline, how its network is told the noise, its scheduler, and what comes of it.
    "ddpm": (
        "DDPMPipeline",
        "positional",
        diffusers.DDPMScheduler(),
        {"range": (-1, 1), "ends": (157.407, 0.0100013), "kind": "epsilon", "lives": "vp"},
    ),
    "ddim": (
        "DDIMPipeline",
        "positional",
        diffusers.DDIMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear"),
        {"range": (-1, 1), "ends": (36.9119, 0.0100013), "kind": "v_prediction", "lives": "vp"},
    ),
    "score-sde-ve": (
        "ScoreSdeVePipeline",
        "fourier",
        diffusers.ScoreSdeVeScheduler(sigma_max=300.0),
        {"range": (0, 1), "ends": (300, 0.01), "kind": "score", "lives": "ve"},
    ),
    # Its network sees (x + 1) / 2, and half the noise.
    "karras-ve": (
        "KarrasVePipeline",
        "fourier",
        KarrasVeScheduler(sigma_max=80.0, sigma_min=0.04),
        {"range": (0, 1), "ends": (40, 0.02), "kind": "score", "lives": "ve"},
    ),
}


def save(folder: Path, case: str) -> Any:
    pipeline, told, scheduler, _ = FOLDERS[case]
    network = unet(told)
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return network


@pytest.mark.parametrize("flat", [False, True], ids=["folders", "flat"])
@pytest.mark.parametrize("case", FOLDERS)
def test_an_unconditional_pipeline_loads_with_a_sampler_of_ours(
    case: str, flat: bool, tmp_path: Path
) -> None:
    network = save(tmp_path, case)
    if flat:  # the first repositories on the Hub, google/ddpm-cifar10-32 among them
        for part in ("unet", "scheduler"):
            shutil.copytree(tmp_path / part, tmp_path, dirs_exist_ok=True)
            shutil.rmtree(tmp_path / part)
    expected = FOLDERS[case][3]
    pipe = quiet(HDPipeline.from_pretrained(tmp_path))
    assert isinstance(pipe.scheduler, ConsistentAnnealedSampler)
    assert pipe.scheduler.num_inference_steps == 200
    assert pipe.scheduler.config.prediction_type == expected["kind"]
    assert pipe.scheduler.config.get("coordinates", "ve") == expected["lives"]
    assert pipe.scheduler.sigmas[[0, -2]].tolist() == pytest.approx(expected["ends"], rel=1e-5)
    assert pipe.data_range == expected["range"]
    for key, weight in network.state_dict().items():
        assert torch.equal(pipe.unet.state_dict()[key], weight)

    recorder = Recorder(pipe.unet)
    picture = torch.rand(2, 3, 8, 8, generator=seeded(1))
    start = {"image": picture} if case == "ddpm" else {}
    samples = pipe(2, STEPS, generator=seeded(), output_type="latent", **start).images
    first, told = recorder.seen[0]
    noise = torch.randn(2, 3, 8, 8, generator=seeded())
    low, high = pipe.data_range
    sigma = pipe.scheduler.sigmas[0].item()
    centre = low + (high - low) * picture if start else (low + high) / 2
    if expected["lives"] == "vp":
        # In VP coordinates pure noise has variance 1.
        wanted = (centre + sigma * noise) / math.hypot(1, sigma) if start else noise
        assert told == 999
        assert [t for _, t in recorder.seen][-1] == 0
    else:
        wanted = centre + sigma * noise
        assert told == pytest.approx(expected["ends"][0])
    torch.testing.assert_close(first, wanted, rtol=1e-6, atol=1e-6)

    pixels = quiet(pipe)(2, STEPS, generator=seeded(), output_type="pt", **start).images
    torch.testing.assert_close(
        pixels, ((samples - low) / (high - low)).clamp(0, 1), rtol=1e-6, atol=1e-6
    )

    # Saved as ours, it is the same.
    pipe.save_pretrained(tmp_path / "ours")
    again = quiet(HDPipeline.from_pretrained(tmp_path / "ours"))
    assert again.data_range == pipe.data_range
    assert torch.equal(
        again(2, STEPS, generator=seeded(), output_type="latent", **start).images, samples
    )


def test_a_sampler_of_the_callers_own_is_left(tmp_path: Path) -> None:
    save(tmp_path, "ddpm")
    own = get_sampler("langevin").from_config(diffusers.DDPMScheduler().config)
    assert HDPipeline.from_pretrained(tmp_path, scheduler=own).scheduler is own
    stock = diffusers.DDPMScheduler()
    pipe = quiet(HDPipeline.from_pretrained(tmp_path, scheduler=stock))
    assert pipe.scheduler is stock


def test_an_exact_cosine_schedule_does_not_go_to_its_end(tmp_path: Path) -> None:
    save(tmp_path, "ddpm")
    config = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    config.save_pretrained(tmp_path / "scheduler")
    pipe = HDPipeline.from_pretrained(tmp_path)
    assert 150 < pipe.scheduler.sigmas[0] <= 200


def test_on_the_command_line(tmp_path: Path) -> None:
    save(tmp_path / "net", "ddpm")
    for sampler in (["-o", "num_levels=4"], ["-s", "annealed-langevin"], ["-s", "langevin"]):
        output = tmp_path / f"{sampler[-1]}.png"
        command = ["sample", str(tmp_path / "net"), "-n", "2", "-t", "20", *sampler]
        result = CliRunner().invoke(app, [*command, "--output", str(output)])
        assert result.exit_code == 0, result.output
        picture = Image.open(output)
        assert picture.width == 2 * picture.height
    result = CliRunner().invoke(app, ["info", str(tmp_path / "net")])
    assert result.exit_code == 0, result.output
    assert "ConsistentAnnealedSampler" in result.output


def spoil(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_conditional_and_latent_pipelines_are_told_where_to_go(tmp_path: Path) -> None:
    save(tmp_path, "ddpm")
    for name, extra in [
        ("StableDiffusionPipeline", {"vae": ["diffusers", "AutoencoderKL"]}),
        ("LDMPipeline", {"vqvae": ["diffusers", "VQModel"]}),
    ]:
        spoil(tmp_path, _class_name=name, **extra, requires_safety_checker=True)
        message = (
            f"is a {name}, whose network needs more .*v.*ae.*; load it with diffusers.{name}.*"
            r"get_sampler\(\.\.\.\).from_config"
        )
        with pytest.raises(HDZooError, match=message):
            HDPipeline.from_pretrained(tmp_path)


def test_schedulers_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path, "ddpm")
    diffusers.CMStochasticIterativeScheduler().save_pretrained(tmp_path / "scheduler")
    spoil(tmp_path, _class_name="ConsistencyModelPipeline")
    with pytest.raises(HDZooError, match="CMStochasticIterativeScheduler does not describe"):
        HDPipeline.from_pretrained(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    for text, message in [("{", "damaged"), ("[]", "holds no object")]:
        path.write_text(text)
        with pytest.raises(HDZooError, match=f"cannot be loaded: .*{message}"):
            HDPipeline.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(HDZooError, match=r"scheduler_config\.json is missing"):
        HDPipeline.from_pretrained(tmp_path)


def test_a_network_that_says_where_it_lives() -> None:
    network = unet()
    network.coordinates = "ve"
    config = diffusers.DDPMScheduler().config
    pipe = HDPipeline(network, get_sampler("annealed-langevin").from_config(config))
    with pytest.raises(HDZooError, match="network has the coordinates 've' and the sampler 'vp'"):
        pipe(1, 10)


# ---- our samplers in other people's pipelines ------------------------------------------------


@pytest.mark.parametrize("name", CORE)
@pytest.mark.filterwarnings("ignore:.*starts here from pure noise")
def test_in_ddpm_pipeline_saved_and_loaded(name: str, tmp_path: Path) -> None:
    pipe = quiet(diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()))
    pipe.scheduler = get_sampler(name).from_config(pipe.scheduler.config, **ladder(name))
    asked: list[int] = []
    pipe.unet.register_forward_hook(lambda *_: asked.append(1))
    images = pipe(2, seeded(), STEPS, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    assert len(asked) == STEPS
    pipe.save_pretrained(tmp_path)
    again = quiet(diffusers.DDPMPipeline.from_pretrained(tmp_path))
    assert type(again.scheduler) is get_sampler(name)
    assert np.array_equal(again(2, seeded(), STEPS, output_type="np").images, images)
    ours = HDPipeline.from_pretrained(tmp_path)
    assert type(ours.scheduler) is get_sampler(name)
    assert torch.equal(
        ours.scheduler.timesteps, get_sampler(name).from_config(pipe.scheduler.config).timesteps
    )
    again.scheduler = diffusers.DDPMScheduler.from_config(again.scheduler.config)
    assert again(2, seeded(), STEPS, output_type="np").images.shape == images.shape


def test_ddim_pipeline_says_to_take_another() -> None:
    pipe = quiet(diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler()))
    pipe.scheduler = get_sampler("alpha-half-denoising").from_config(pipe.scheduler.config)
    with pytest.raises(HDZooError, match=r"given 'eta', which .* DDPMPipeline or HDPipeline"):
        pipe(1, num_inference_steps=STEPS)


# ---- Stable Diffusion ------------------------------------------------------------------------


def stable_diffusion(kind: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=8,
            intermediate_size=8,
            num_attention_heads=2,
            num_hidden_layers=1,
            vocab_size=16,
            max_position_embeddings=8,
        )
    )
    return quiet(
        getattr(diffusers, kind)(
            vae=vae,
            text_encoder=text,
            tokenizer=None,
            unet=network,
            scheduler=diffusers.PNDMScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.012,
                skip_prk_steps=True,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


KINDS = {
    "StableDiffusionPipeline": {"height": 16, "width": 16},
    "StableDiffusionImg2ImgPipeline": {
        "image": Image.new("RGB", (16, 16), (200, 30, 30)),
        "strength": 0.7,
    },
    "StableDiffusionInpaintPipeline": {
        "image": Image.new("RGB", (16, 16), (200, 30, 30)),
        "mask_image": Image.new("L", (16, 16), 255),
        "height": 16,
        "width": 16,
        "strength": 0.7,
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["alpha-half-denoising", "consistent-annealed-sampling", "half-denoising"]
)
@pytest.mark.filterwarnings("ignore:.*starts here from pure noise")
def test_in_stable_diffusion_saved_and_loaded(name: str, kind: str, tmp_path: Path) -> None:
    pipe = stable_diffusion(kind)
    pipe.scheduler = get_sampler(name).from_config(pipe.scheduler.config, **ladder(name))
    asked: list[torch.Size] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: asked.append(args[0].shape))
    tokens = torch.arange(8)[None]
    prompts = {
        "prompt_embeds": pipe.text_encoder(tokens)[0].detach(),
        "negative_prompt_embeds": pipe.text_encoder(tokens + 8)[0].detach(),
    }

    def draw(pipe: Any) -> Any:
        return pipe(
            **prompts,
            **KINDS[kind],
            guidance_scale=3.0,
            num_inference_steps=STEPS,
            generator=seeded(),
            output_type="np",
        ).images

    images = draw(pipe)
    assert images.shape == (1, 16, 16, 3)
    assert np.isfinite(images).all()
    # Twice the batch, for guidance.
    count = STEPS if kind == "StableDiffusionPipeline" else int(STEPS * 0.7)
    assert asked == [torch.Size([2, 4, 8, 8])] * count
    pipe.save_pretrained(tmp_path)
    again = quiet(type(pipe).from_pretrained(tmp_path, tokenizer=None))
    assert type(again.scheduler) is get_sampler(name)
    assert np.array_equal(draw(again), images)
    with pytest.raises(HDZooError, match=f"is a {kind}, whose network needs more"):
        HDPipeline.from_pretrained(tmp_path)


def test_half_precision_latents() -> None:
    """bfloat16 state and network, as these pipelines run on accelerators."""
    pipe = stable_diffusion("StableDiffusionPipeline").to(torch.bfloat16)
    pipe.scheduler = get_sampler("alpha-half-denoising").from_config(
        pipe.scheduler.config, num_levels=4
    )
    latents = pipe(
        prompt_embeds=torch.zeros(1, 8, 8, dtype=torch.bfloat16),
        guidance_scale=1.0,
        num_inference_steps=STEPS,
        height=16,
        width=16,
        generator=seeded(),
        output_type="latent",
    ).images
    assert latents.dtype == torch.bfloat16
    assert latents.isfinite().all()


def test_steps_signature_is_what_pipelines_look_for() -> None:
    """They ask which arguments are taken by name."""
    sampler = get_sampler("langevin")
    assert "generator" in inspect.signature(sampler.step).parameters
    assert "eta" not in inspect.signature(sampler.step).parameters
    assert {"sigmas", "timesteps"} <= set(inspect.signature(sampler.set_timesteps).parameters)
