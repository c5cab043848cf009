# %% [markdown]
# # Put a sampler on Stable Diffusion
#
# Any sampler of hdzoo takes the place of a pipeline's scheduler. With the trained pipeline it is
#
#     pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
#     sampler = get_sampler("consistent-annealed-sampling")
#     pipe.scheduler = sampler.from_config(pipe.scheduler.config)
#     image = pipe("a lighthouse", num_inference_steps=100).images[0]
#
# So that this page is made without a download, here is a tiny Stable Diffusion with random
# weights in its place: what it draws is noise. All its parts are of the same classes.

# %%
import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from hdzoo import get_sampler

torch.manual_seed(0)
pipe = StableDiffusionPipeline(
    vae=AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
    unet=UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ),
    scheduler=PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        steps_offset=1,
    ),
    text_encoder=None,
    tokenizer=None,
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
pipe.set_progress_bar_config(disable=True)
# What a text encoder makes of a prompt, and of none.
prompt, none = torch.randn(2, 1, 4, 8).unbind()

# %% [markdown]
# The noise schedule of the network becomes a ladder, on the levels that it was trained at.

# %%
pipe.scheduler = get_sampler("consistent-annealed-sampling").from_config(pipe.scheduler.config)
pipe.scheduler.set_timesteps(20)
print("noise levels from", f"{pipe.scheduler.sigmas[0]:.3g} to {pipe.scheduler.sigmas[-2]:.3g}")
generator = torch.Generator().manual_seed(0)
pipe(
    prompt_embeds=prompt,
    negative_prompt_embeds=none,
    guidance_scale=5.0,
    num_inference_steps=20,
    generator=generator,
).images[0].resize((128, 128))

# %% [markdown]
# Walks on a ladder take more evaluations, and have options of their own: here with half-denoising
# between the rungs, and a denoising step at the end. Image-to-image starts in the middle of the
# ladder.

# %%
pipe.scheduler = get_sampler("annealed-langevin").from_config(
    pipe.scheduler.config, num_levels=5, hand_off="half", readout="full"
)
image = pipe(prompt_embeds=prompt, negative_prompt_embeds=none, num_inference_steps=20).images[0]
again = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
again.set_progress_bar_config(disable=True)
again(
    prompt_embeds=prompt,
    negative_prompt_embeds=none,
    image=image,
    strength=0.5,
    num_inference_steps=20,
).images[0].resize((128, 128))
