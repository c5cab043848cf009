# %% [markdown]
# # Train on a folder
#
# Any folder of images will do. Here is one with 300 small digits, which come with scikit-learn.

# %%
from pathlib import Path

from hdzoo import HDPipeline, UNetScoreModel
from hdzoo.images.digits import load_digits
from hdzoo.images.sources import load_images
from hdzoo.sampling import image_grid
from hdzoo.training.trainer import TrainingConfig, train

folder = Path("pictures")
folder.mkdir()
for i, row in enumerate(load_digits().select(range(300))):
    row["image"].save(folder / f"{i:03d}.png")

# %% [markdown]
# A network that takes every noise level from 0.02 to 10, and a run that is far too short, so that
# this page is quick. The same run by the command line: `hdzoo train --dataset pictures
# --output-dir runs/small --max-train-steps 30 --train-batch-size 32`. A run that is stopped goes
# on with the same command.

# %%
network = UNetScoreModel(
    sample_size=8, block_out_channels=(16, 32), norm_num_groups=8, sigma_min=0.02, sigma_max=10.0
)
config = TrainingConfig(
    max_train_steps=30, train_batch_size=32, lr_warmup_steps=5, sigma_distribution="log-normal"
)
run = train(network, load_images("pictures", "train"), "runs/small", config, num_samples=0)
print(*sorted(path.name for path in run.iterdir() if path.is_file()), sep="\n")

# %% [markdown]
# The output is a pipeline folder with a card, as `hdzoo push runs/small me/small` sends it to the
# Hub. After 30 steps it draws blots; a few thousand make digits.

# %%
pipe = HDPipeline.from_pretrained("runs/small")
pipe.set_progress_bar_config(disable=True)
image_grid(pipe(batch_size=8, num_inference_steps=50).images, scale=8, columns=8)
