# %% [markdown]
# # A sampler of your own, in ten minutes
#
# Annealed Langevin dynamics moves by `x + alpha * score + sqrt(2 alpha) * noise` on each rung of
# a ladder of noise levels, and ends with the noise of the last rung still in the sample. Here is
# one that ends with half of a denoising step. All that differs from its family is the last move.

# %%
from hdzoo import GaussianMixtureScore, HDPipeline
from hdzoo.samplers.base import Limit, Move
from hdzoo.samplers.families import LadderSampler


class HalfReadOut(LadderSampler):
    r"""Annealed Langevin dynamics with half of a denoising step at the end.

    .. math:: x \leftarrow x + \alpha_i s(x, \sigma_i) + \sqrt{2 \alpha_i} z

    Axes: walk with fresh noise, a ladder, no hand-off, half read-out.
    """

    source = "this tutorial"
    family = "Langevin"
    limit = Limit("data", "sigma_min")

    def read_out(self, walk: Move) -> Move:
        return Move(walk.sigma, alpha=walk.sigma**2 / 2, noise=0.0)


# %% [markdown]
# It is a sampler like any other: a target whose score is exact is a network like any other, too.

# %%
target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.04, 0.04], weights=[0.3, 0.7])
pipe = HDPipeline(target, HalfReadOut(sigma_max=2.0, sigma_min=0.05, num_levels=10))
pipe.set_progress_bar_config(disable=True)
samples = pipe(batch_size=2000, num_inference_steps=100).images
print(f"share of the right mode: {(samples > 0).float().mean():.2f}, and 0.70 in the target")

# %% [markdown]
# Is it right? On Gaussian data the law of its output is found exactly, without a sample: its
# update is affine, so impulses through `step` give mean and covariance. The standard deviation
# should be 0.25.

# %%
from hdzoo.verification import Gaussian, exact_law

data = Gaussian.of(mean=[0.0], covariance=[0.25**2])
for sigma_min in (0.2, 0.1, 0.05):
    law = exact_law(HalfReadOut(sigma_max=2.0, sigma_min=sigma_min, num_levels=10), data)
    print(f"sigma_min {sigma_min}: standard deviation {float(law.covariance.squeeze()) ** 0.5:.5f}")

# %% [markdown]
# `hdzoo new-sampler half-read-out` writes a package around such a class. Once it is installed,
# `hdzoo verify half-read-out` runs all checks on it, and `hdzoo compare` ranks it with the
# others.
