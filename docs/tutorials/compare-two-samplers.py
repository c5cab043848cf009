# %% [markdown]
# # Compare two samplers
#
# First where the truth is known. The distance of a sampler's output to Gaussian data is exact, so
# a difference is a difference. At equal cost, that is at the same number of network evaluations:

# %%
import hdzoo
from hdzoo import HDPipeline, get_sampler
from hdzoo.sampling import image_grid
from hdzoo.verification import bias

NAMES = ("annealed-langevin", "consistent-annealed-sampling")
for evaluations in (20, 50):
    for name in NAMES:
        sampler = get_sampler(name)(readout="full")
        sampler.set_timesteps(evaluations)
        print(f"{evaluations} evaluations, {name}: W2 to the data {bias(sampler):.4f}")

# %% [markdown]
# Then on a network, from the same noise. Rows are samplers.

# %%
images = []
for name in NAMES:
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = get_sampler(name).from_config(pipe.scheduler.config, readout="full")
    generators = hdzoo.sample_generators(seed=0, indices=range(8))
    images += pipe(batch_size=8, num_inference_steps=60, generator=generators).images
image_grid(images, scale=3, columns=8)

# %% [markdown]
# Eight pictures decide nothing. `hdzoo compare ncsn-mnist -s annealed-langevin -s
# consistent-annealed-sampling -t 60 -n 5000 -O boards/two` tunes both by the same search and
# prints Fréchet distances with their spreads. A difference within its spread is called a tie.
