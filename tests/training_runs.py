"""Training runs that take no time, for the tests of training."""

import dataclasses
import json

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.models.unet import UNetScoreModel
from hdzoo.training.checkpoints import latest_checkpoint
from hdzoo.training.trainer import TrainingConfig, train

CONFIG = TrainingConfig(
    max_train_steps=30,
    train_batch_size=8,
    learning_rate=2e-3,
    lr_warmup_steps=5,
    sigma_distribution="log-normal",
    loss_weighting="karras",
)
UNET = {
    "sample_size": 8,
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "data_mean": 0.3,
    "data_std": 0.37,
    "sigma_max": 5.0,
}


def unet(**options):
    torch.manual_seed(0)
    return UNetScoreModel(**UNET | options)


def with_config(**options):
    return dataclasses.replace(CONFIG, **options)


def run(folder, dataset, config=CONFIG, **options):
    model = options.pop("model", None) or unet()
    return train(model, dataset, folder, config, **{"num_samples": 0} | options)


def weights(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def last_step(folder):
    return latest_checkpoint(folder / "checkpoints").progress.step


def everything(folder):
    """Weights, average and optimiser, as the last checkpoint has them."""
    return load_file(latest_checkpoint(folder / "checkpoints").path)


def raw_weights(folder):
    prefix = "model."
    return {k.removeprefix(prefix): v for k, v in everything(folder).items() if prefix in k[:6]}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


def latest_path(folder):
    return latest_checkpoint(folder / "checkpoints").path


def lines(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def score_unet():
    """diffusers' own network, which is told sigma and divides its output by it."""
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
        time_embedding_type="fourier",
    )
    network.register_to_config(sigma_min=0.1, sigma_max=2.0, data_range=(0.0, 1.0))
    return network


def ncsn(cls):
    return cls(
        sample_size=8, in_channels=1, base_channels=8, sigma_min=0.1, num_levels=4, sigma_max=1
    )


def ladder(number):
    return NCSNv2Model(
        sample_size=8, in_channels=1, base_channels=8, sigma_max=50, num_levels=number
    )
