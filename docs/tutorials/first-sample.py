# %% [markdown]
# # First sample
#
# A model is a network and a sampler. `ncsn-mnist` comes with hdzoo: a network of 2.4 million
# parameters that draws digits on any processor.

# %%
import hdzoo
from hdzoo import HDPipeline, get_sampler, list_samplers
from hdzoo.sampling import image_grid

pipe = HDPipeline.from_pretrained("ncsn-mnist")
pipe.set_progress_bar_config(disable=True)
type(pipe.scheduler).__name__

# %% [markdown]
# `num_inference_steps` is the number of times that the network is asked for each image, whatever
# the sampler. With one generator for each image, image `i` is the same in every batch.

# %%
generators = hdzoo.sample_generators(seed=0, indices=range(8))
images = pipe(batch_size=8, num_inference_steps=50, generator=generators).images
image_grid(images, scale=3, columns=8)

# %% [markdown]
# Another sampler on the same network, from the same noise. A sampler is a diffusers scheduler,
# and is exchanged like one. What the model's configuration says of the noise levels stays.

# %%
pipe.scheduler = get_sampler("heun").from_config(pipe.scheduler.config, sigma_min=0.1)
generators = hdzoo.sample_generators(seed=0, indices=range(8))
images = pipe(batch_size=8, num_inference_steps=20, generator=generators).images
image_grid(images, scale=3, columns=8)

# %% [markdown]
# All there are, those of other installed packages included:

# %%
print(*list_samplers(), sep="\n")
