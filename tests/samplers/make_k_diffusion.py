"""Makes k_diffusion.json, what k-diffusion's samplers make of one start and the same noise.

``python tests/samplers/make_k_diffusion.py FOLDER``, with a clone of crowsonkb/k-diffusion; the
file is from its commit 4601bf0. Only ``k_diffusion/sampling.py`` is needed of it, and of what that
imports neither torchdiffeq nor torchsde, which are stood in for.
"""

import json
import sys
import types
from pathlib import Path

import torch

MEANS = [[1.0, -0.5, 0.2], [-0.8, 0.6, 0.0]]
VARIANCE = 0.16
SIGMAS = [6.0, 3.2, 1.6, 0.9, 0.4, 0.15, 0.0]
# The level that is left out is the first, which may not be raised above itself.
CHURN = {"s_churn": 1.2, "s_tmin": 0.3, "s_tmax": 5.0, "s_noise": 1.007}


def denoised(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """The denoiser of a mixture of two normal laws, equally likely."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype).flatten()[0]
    total, means = VARIANCE + sigma**2, torch.tensor(MEANS, dtype=x.dtype)
    shares = torch.softmax(-(torch.cdist(x, means) ** 2) / (2 * total), 1)
    return (VARIANCE * x + sigma**2 * shares @ means) / total


def main(folder: str) -> None:
    for name in ("torchdiffeq", "torchsde"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchdiffeq"].odeint = None
    sys.path.insert(0, folder)
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(Path(folder) / "k_diffusion")]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    package.utils = utils
    from k_diffusion import sampling

    generator = torch.Generator().manual_seed(0)
    shape, steps = (2, 3), len(SIGMAS) - 1
    start = 6 * torch.randn(shape, generator=generator, dtype=torch.float64)
    noises = torch.randn((steps, *shape), generator=generator, dtype=torch.float64)
    sigmas = torch.tensor(SIGMAS, dtype=torch.float64)

    def run(sampler: str, **options: float) -> list[list[float]]:
        left = iter(noises)
        torch.randn_like = lambda _: next(left)
        if "eta" in options:
            options["noise_sampler"] = lambda *_: next(left)
        end = getattr(sampling, sampler)(denoised, start, sigmas, disable=True, **options)
        return end.tolist()

    made = {
        "start": start.tolist(),
        "noises": noises.tolist(),
        "heun": run("sample_heun"),
        "heun-churn": run("sample_heun", **CHURN),
        "2m": run("sample_dpmpp_2m"),
        **{f"2m-sde-{eta}": run("sample_dpmpp_2m_sde", eta=eta) for eta in (0.0, 0.5, 1.0)},
    }
    Path(__file__).with_name("k_diffusion.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
