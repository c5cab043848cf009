"""Checkpoints in the layouts of the three repositories."""

import json

import pytest
import torch
from given import golden
from safetensors.torch import load_file

from hdzoo.conversion.families import published_keys
from hdzoo.models.ncsnpp import NCSNppModel

OPTIMIZER = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}


class Checkpoints:
    """Writes checkpoints into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def authors(self, name):
        """Weights in the order of the authors' state dict, and inputs and outputs."""
        data = load_file(golden(f"{name}.safetensors"))
        order = json.loads(golden(f"{name}.json").read_text())["tensors"]
        return {key[3:]: data[key] for key in order if key.startswith("sd.")}, data

    def published(self, network):
        """A network's weights under the authors' names, in their order."""
        state = network.state_dict()
        weights = {theirs: state[ours] for ours, theirs in published_keys(network).items()}
        if isinstance(network, NCSNppModel):
            config = network.config
            ladder = torch.linspace(0, 1, config.num_levels, dtype=torch.float64)
            sigmas = config.sigma_max * (config.sigma_min / config.sigma_max) ** ladder
            weights = {"sigmas": sigmas} | weights
        return weights

    def write(self, content, zipped=False):
        path = self.folder / "checkpoint.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return path

    def ncsn(self, weights):
        return self.write([_prefixed(weights), OPTIMIZER])

    def ncsnv2(self, weights, averaged=None):
        """With ``averaged``, as five entries; without, as four."""
        last = [] if averaged is None else [averaged]
        return self.write([_prefixed(weights), OPTIMIZER, 7, 300_000, *last])

    def score_sde(self, weights, averaged):
        """``averaged`` is a list."""
        ema = {"decay": 0.999, "num_updates": 9, "shadow_params": averaged}
        content = {"optimizer": OPTIMIZER, "model": _prefixed(weights), "ema": ema, "step": 9}
        return self.write(content, zipped=True)

    def any(self, network):
        """A checkpoint of a network in its own repository's layout, its weights averaged."""
        weights = self.published(network)
        other = {key: value + 1 for key, value in weights.items()}
        trained = {key: weights[key] for key in weights if self.is_trained(key)}
        if isinstance(network, NCSNppModel):
            kept = {key: weights[key] for key in weights if not self.is_trained(key)}
            return self.score_sde(other | kept, list(trained.values()))
        if "sigmas" in weights:
            return self.ncsnv2(other | {"sigmas": weights["sigmas"]}, trained)
        return self.ncsn(weights)

    @staticmethod
    def is_trained(key):
        return key not in ("sigmas", "all_modules.0.W")


def _prefixed(weights):
    return {f"module.{key}": value for key, value in weights.items()}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path)
