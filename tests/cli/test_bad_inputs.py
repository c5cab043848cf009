"""Bad inputs over the command line: each is one clear message, exit code 2, and nothing written."""

import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from hdzoo import cli

HUGE = 2**63
GOOGOL = 10**100

# {model} stands for a pipeline folder, {set} for 30 images and {few} for 10; file.txt, picture.png,
# mask.png, full/ and empty/ are in the current folder. Then what the message says.
CASES = [
    # Numbers.
    ("sample {model} -n 0", "num_images is 0"),
    ("sample {model} -n -1", "num_images is -1"),
    ("sample {model} -n two", "'two'"),
    ("sample {model} -n 1.5", "'1.5'"),
    ("sample {model} -n 1e20", "'1e20'"),
    ("sample {model} -n nan", "'nan'"),
    ("sample {model} -n inf", "'inf'"),
    ("sample {model} -n 0x10", "'0x10'"),
    (f"sample {{model}} -n {10**12}", "num_images is 1000000000000"),
    (f"sample {{model}} -n {GOOGOL}", "num_images is"),
    ("sample {model} -n 2 --seed=-1", "seed is -1"),
    (f"sample {{model}} -n 2 --seed {HUGE}", "seed is 9223372036854775808"),
    (f"sample {{model}} -n 2 --seed {GOOGOL}", "seed is"),
    ("sample {model} -n 2 --seed 1e3", "'1e3'"),
    ("sample {model} -n 2 --seed nan", "'nan'"),
    ("sample {model} -n 2 -t 0", "num_inference_steps is 0"),
    ("sample {model} -n 2 -t -5", "num_inference_steps is -5"),
    ("sample {model} -n 2 -t 3", "at least 4"),
    ("sample {model} -n 2 -t many", "'many'"),
    (f"sample {{model}} -n 2 -t {10**15}", "num_inference_steps is 1000000000000000"),
    (f"sample {{model}} -n 2 -t {GOOGOL}", "num_inference_steps is"),
    ("sample {model} -n 2 --backend tpu", "unknown backend 'tpu'; allowed are torch, onnxruntime"),
    ("sample {model} -n 2 --backend onnxruntime --dtype bf16", "dtype is 'bfloat16'"),
    ("sample {model} -n 2 --interpolate 3", "--interpolate is '3'"),
    ("sample {model} -n 2 --interpolate 3:4:5", "--interpolate is '3:4:5'"),
    ("sample {model} -n 2 --interpolate a:b", "--interpolate is 'a:b'"),
    ("sample {model} -n 2 --interpolate=-1:2", "--interpolate is '-1:2'"),
    ("sample {model} -n 2 --interpolate 1.5:2", "--interpolate is '1.5:2'"),
    (f"sample {{model}} -n 2 --interpolate 3:{HUGE}", "interpolate is 9223372036854775808"),
    (f"sample {{model}} -n 2 --interpolate 3:{GOOGOL}", "--interpolate is '3:1"),
    ("sample {model} -n 2 --interpolate 3:3", "interpolate is 3:3"),
    ("sample {model} -n 2 --interpolate 3:03", "interpolate is 3:3"),
    ("sample {model} -n 2 --interpolate 3:5 --seed 0", "--seed is 0, and --interpolate"),
    ("sample {model} -n 1 --interpolate 3:5", "num_images is 1"),
    ("sample {model} -n 0 --interpolate 3:5", "num_images is 0"),
    (f"sample {{model}} -n {10**6} --interpolate 3:5", "num_images is 1000000"),
    ("sample {model} -n 2 --samples-every 0", "samples_every is 0"),
    ("sample {model} -n 2 --samples-every=-1", "samples_every is -1"),
    ("sample {model} -n 2 -t 8 --samples-every 9", "samples_every is 9"),
    ("sample {model} -n 2 --samples-every two", "'two'"),
    ("sample {model} -n 2 --batch-size 0", "batch_size is 0"),
    ("sample {model} -n 2 --batch-size=-7", "batch_size is -7"),
    (f"sample {{model}} -n 2 --batch-size {GOOGOL}", "batch_size is"),
    ("sample {model} -n 2 --scale 0", "--scale"),
    ("sample {model} -n 2 --scale=-2", "--scale"),
    ("sample {model} -n 2 --scale 100000", "scale is 100000"),
    (f"sample {{model}} -n 2 --scale {GOOGOL}", "scale is"),
    # Names.
    ("sample {model} -s nobody", "unknown sampler 'nobody'"),
    ("sample {model} -s LANGEVIN", "did you mean 'langevin'"),
    ("sample {model} -s ../langevin", "unknown sampler '../langevin'"),
    ("sample {model} --dtype int8", "unknown dtype 'int8'"),
    ("sample {model} --dtype float64", "unknown dtype 'float64'"),
    ("sample {model} --dtype BF16", "unknown dtype 'BF16'"),
    ("sample nowhere", "there is no model 'nowhere'"),
    ("sample a/b/c", "there is no model 'a/b/c'"),
    ("sample /no/such/folder", "/no/such/folder"),
    ("sample me/nowhere", "'me/nowhere'"),
    ("sample file.txt", "file.txt"),
    ("sample full", "no pipeline folder"),
    ("sample empty", "no pipeline folder"),
    ("sample {model} more", "more"),
    ("sample {model} --bogus", "--bogus"),
    ("sample {model} -n", "-n"),
    ("smaple {model}", "smaple"),
    # Options of a sampler.
    ("sample {model} -o step_size", "KEY=VALUE"),
    ("sample {model} -o =1", "KEY=VALUE"),
    ("sample {model} -o step_size=", "step_size"),
    ("sample {model} -o nobody=1", "nobody"),
    ("sample {model} -o __class__=1", "__class__"),
    ("sample {model} -o self=1", "self"),
    ("""sample {model} -o 'sigmas=["a"]'""", "sigmas"),
    ("sample {model} -o 'sigmas=[]'", "ladder"),
    ("sample {model} -o 'sigmas=[NaN]'", "nan"),
    ("sample {model} -o 'sigmas=[Infinity, 1]'", "inf"),
    ("sample {model} -o sigmas=1", "sigmas"),
    ("sample {model} -o sigmas=wide", "sigmas"),
    ("sample {model} -o 'sigmas=[0.1, 1]'", "descend"),
    ("sample {model} -o 'sigmas=[1, 1]'", "descend"),
    ("sample {model} -o 'sigmas=[1, 0]'", "positive"),
    ("sample {model} -o 'sigmas=[[1, 0.5]]'", "sigmas"),
    ("sample {model} -o 'sigmas={{}}'", "sigmas"),
    ("sample {model} -o sigma_max=NaN", "sigma_max is nan"),
    ("sample {model} -o sigma_max=Infinity", "sigma_max is inf"),
    ("sample {model} -o sigma_max=1e400", "sigma_max is inf"),
    ("sample {model} -o sigma_max=wide", "sigma_max is 'wide'"),
    ("sample {model} -o sigma_max=true", "sigma_max is True"),
    ("sample {model} -o sigma_max=50", "0.01 to 10"),
    ("sample {model} -o sigma_min=5", "sigma"),
    ("sample {model} -o sigma_min=0", "sigma_min is 0"),
    ("sample {model} -o sigma_min=-1", "sigma_min is -1"),
    ("sample {model} -o num_levels=0", "num_levels is 0"),
    ("sample {model} -o num_levels=2.5", "num_levels is 2.5"),
    ("sample {model} -o num_levels=many", "num_levels is 'many'"),
    ("sample {model} -o num_levels=true", "num_levels is True"),
    ("sample {model} -o num_levels=1000000000", "num_levels is 1000000000"),
    ("sample {model} -o steps_per_level=0", "steps_per_level is 0"),
    ("sample {model} -o steps_per_level=1000000000000", "steps_per_level is 1000000000000"),
    ("sample {model} -o readout=banana", "readout is 'banana'"),
    ("sample {model} -o readout=7", "readout is 7"),
    ("sample {model} -o hand_off=banana", "hand_off is 'banana'"),
    ("sample {model} -o prediction_type=banana", "prediction_type"),
    ("sample {model} -o timestep_type=banana", "timestep_type"),
    ("sample {model} -o step_size=-1", "step_size is -1"),
    ("sample {model} -o step_size=0", "step_size is 0"),
    ("sample {model} -o step_size=banana", "step_size is 'banana'"),
    ("sample {model} -o 'step_size={{}}'", "step_size"),
    ("sample {model} -o 'step_size=[1, 2]'", "step_size"),
    ("sample {model} -s langevin -o sigma=0", "sigma is 0"),
    ("sample {model} -s langevin -o num_steps=0", "num_steps is 0"),
    # Where pictures go.
    ("sample {model} -n 2 -t 8 -O full", "full"),
    ("sample {model} -n 2 -t 8 -O file.txt/grid.png", "file.txt"),
    ("sample {model} -n 2 -t 8 -O grid.jpg", ".png"),
    ("sample {model} -n 2 -t 8 --images-dir file.txt", "file.txt"),
    ("sample {model} -n 2 -t 8 --gif full", "full"),
    ("sample {model} -n 2 -t 8 --gif forming.png", ".gif"),
    # Inpainting.
    ("inpaint nowhere picture.png mask.png", "there is no model 'nowhere'"),
    ("inpaint {model} nowhere.png mask.png", "nowhere.png"),
    ("inpaint {model} picture.png nowhere.png", "nowhere.png"),
    ("inpaint {model} file.txt mask.png", "file.txt"),
    ("inpaint {model} full mask.png", "full"),
    ("inpaint {model} wide.png mask.png", "(3, 5)"),
    ("inpaint {model} picture.png", "MASK"),
    ("inpaint {model} picture.png mask.png -n 0", "num_images is 0"),
    (f"inpaint {{model}} picture.png mask.png -n {10**12}", "num_images is 1000000000000"),
    ("inpaint {model} picture.png mask.png --known-noise banana", "banana"),
    ("inpaint {model} picture.png mask.png -s nobody", "nobody"),
    ("inpaint {model} picture.png mask.png --scale 100000", "scale is 100000"),
    ("inpaint {model} picture.png mask.png --seed=-1", "seed is -1"),
    (f"inpaint {{model}} picture.png mask.png --seed {HUGE}", "seed is 9223372036854775808"),
    ("inpaint {model} picture.png mask.png --batch-size 0", "batch_size is 0"),
    ("inpaint {model} picture.png mask.png --dtype int8", "unknown dtype 'int8'"),
    ("inpaint {model} picture.png mask.png -O full", "full"),
    ("posterior {model} picture.png", "--sigma"),
    ("posterior {model} nowhere.png --sigma 1", "nowhere.png"),
    ("posterior nowhere picture.png --sigma 1", "there is no model 'nowhere'"),
    ("posterior {model} file.txt --sigma 1", "file.txt"),
    ("posterior {model} picture.png --sigma 0", "sigma is 0"),
    ("posterior {model} picture.png --sigma=-1", "sigma is -1"),
    ("posterior {model} picture.png --sigma nan", "sigma is nan"),
    ("posterior {model} picture.png --sigma much", "'much'"),
    ("posterior {model} picture.png --sigma 20", "from 0.01 to 10"),
    ("posterior {model} picture.png --sigma 1 --probes 1", "num_probes is 1"),
    ("posterior {model} picture.png --sigma 1 --probes=-1", "num_probes is -1"),
    ("posterior {model} picture.png --sigma 1 -k 65", "an image has 64 numbers"),
    ("posterior {model} picture.png --sigma 1 -k -1", "num_directions is -1"),
    ("posterior {model} picture.png --sigma 1 --seed=-1", "seed is -1"),
    ("posterior {model} picture.png --sigma 1 --batch-size 0", "batch_size is 0"),
    ("posterior {model} picture.png --sigma 1 --dtype int8", "unknown dtype 'int8'"),
    ("posterior {model} picture.png --sigma 1 --class-label 1", "class_labels are given"),
    ("posterior {model} wide.png --sigma 1 --noisy", "to resize a noisy image"),
    ("posterior {model} picture.png --sigma 1 -O full", "full"),
    ("posterior {model} picture.png --sigma 1 -O out.jpg", ".png"),
    # Generated sets.
    ("generate {model}", "--output-dir"),
    ("generate nowhere -O set", "there is no model 'nowhere'"),
    ("generate {model} -O file.txt -n 2", "file.txt"),
    ("generate {model} -O full -n 2", "full"),
    ("generate {model} -O set -n 0", "num_images is 0"),
    ("generate {model} -O set -n -3", "num_images is -3"),
    ("generate {model} -O set -n 1e20", "'1e20'"),
    (f"generate {{model}} -O set -n {GOOGOL}", "num_images"),
    (f"generate {{model}} -O set -n {10**12} --chunk-size {10**11}", "num_images is 1000000000000"),
    ("generate {model} -O set -n 2 --chunk-size 0", "chunk_size is 0"),
    (f"generate {{model}} -O set -n 2 --chunk-size {GOOGOL}", "chunk_size is"),
    ("generate {model} -O set -n 2 --num-threads 0", "num_threads is 0"),
    (f"generate {{model}} -O set -n 2 --num-threads {10**12}", "num_threads is 1000000000000"),
    ("generate {model} -O set -n 2 --seed=-1", "seed is -1"),
    (f"generate {{model}} -O set -n 2 --seed {HUGE}", "seed is 9223372036854775808"),
    ("generate {model} -O set -n 2 -t 0", "num_inference_steps is 0"),
    ("generate {model} -O set -n 2 -s nobody", "nobody"),
    ("generate {model} -O set -n 2 --dtype int8", "unknown dtype 'int8'"),
    ("generate {model} -O set -n 2 -o nobody=1", "nobody"),
    ("generate {model} -O set -n 2 --push-to-hub banana", "NAMESPACE/NAME"),
    ("generate {model} -O set -n 2 --push-to-hub a/b/c", "NAMESPACE/NAME"),
    # Metrics.
    ("evaluate nowhere.parquet -r nowhere.safetensors", "nowhere.parquet"),
    ("evaluate nowhere", "nowhere"),
    ("evaluate file.txt", "file.txt"),
    ("evaluate empty -r digits -f digits", "empty"),
    ("evaluate {set}", "reference"),
    ("evaluate {set} -r nowhere.safetensors", "nowhere.safetensors"),
    ("evaluate {set} -r file.txt", "features"),
    ("evaluate {set} -r digits", "features"),
    ("evaluate {set} -r digits -f nobody", "nobody"),
    ("evaluate {set} -r digits -f digits --features-weights nowhere.pth", "nowhere.pth"),
    ("evaluate {set} -r digits -f digits --features-weights file.txt", "file.txt"),
    ("evaluate {set} -r digits -f digits --reference-split banana", "banana"),
    ("evaluate digits --split banana -r digits -f digits", "banana"),
    ("evaluate {set} -r digits -f digits --metric banana", "banana"),
    ("evaluate {set} -r digits -f digits --subsets 4", "subsets is 4"),
    ("evaluate {set} -r digits -f digits --subsets 1000000", "subsets is 1000000"),
    ("evaluate {set} -r digits -f digits --metrics-seed=-1", "seed is -1"),
    (f"evaluate {{set}} -r digits -f digits --metrics-seed {HUGE}", "seed is 9223372036854775808"),
    ("evaluate {set} -r digits -f digits --batch-size 0", "batch_size is 0"),
    ("evaluate {few} -r digits -f digits", "has 10 images"),
    ("evaluate digits -r digits -f digits --output full", "full"),
    ("evaluate digits -r digits -f digits --output file.txt/report.json", "file.txt"),
    ("evaluate digits -r digits -f digits --card nowhere", "nowhere"),
    ("evaluate digits -s langevin", "--model"),
    ("evaluate digits -t 10", "--model"),
    ("evaluate digits -o sigma=1", "--model"),
    ("evaluate set --model nowhere", "there is no model 'nowhere'"),
    ("evaluate set --model {model} -n 0", "num_images is 0"),
    ("reference nowhere.parquet -O r.safetensors", "nowhere.parquet"),
    ("reference digits", "--output"),
    ("reference digits -O r.json", ".safetensors"),
    ("reference digits -O full", "full"),
    ("reference digits -O file.txt/r.safetensors", "file.txt"),
    ("reference digits -O r.safetensors -f nobody", "nobody"),
    ("reference digits -O r.safetensors --split banana", "banana"),
    ("reference digits -O r.safetensors --max-features 0", "max_features is 0"),
    ("reference digits -O r.safetensors --seed=-1", "seed is -1"),
    (f"reference digits -O r.safetensors --seed {HUGE}", "seed is 9223372036854775808"),
    ("reference digits -O r.safetensors --batch-size 0", "batch_size is 0"),
    ("reference {few} --split train -O r.safetensors", "has 10 images"),
    # Leaderboards.
    ("compare {model}", "--output-dir"),
    ("compare nowhere -O board", "nowhere"),
    ("compare {model} -O board", "reference"),
    ("compare {model} -O board -n 0 -r digits -f digits", "num_images is 0"),
    ("compare {model} -O board -n 5 -r digits -f digits", "num_images is 5"),
    (f"compare {{model}} -O board -n {GOOGOL} -r digits -f digits", "num_images is"),
    ("compare {model} -O board -t 1 -r digits -f digits", "num_inference_steps[0] is 1"),
    ("compare {model} -O board -t 0 -r digits -f digits", "num_inference_steps[0] is 0"),
    (
        f"compare {{model}} -O board -t {10**15} -r digits -f digits",
        "num_inference_steps[0] is",
    ),
    ("compare {model} -O board --trials=-1 -r digits -f digits", "trials is -1"),
    (f"compare {{model}} -O board --trials {GOOGOL} -r digits -f digits", "trials is"),
    ("compare {model} -O board --trial-images 0 -r digits -f digits", "trial_images is 0"),
    ("compare {model} -O board -n 50 --trial-images 51 -r digits -f digits", "trial_images is 51"),
    ("compare {model} -O board --seed 1 -r digits -f digits", "seed and trial_seed are both 1"),
    ("compare {model} -O board --seed=-1 -r digits -f digits", "seed is -1"),
    (f"compare {{model}} -O board --trial-seed {HUGE} -r digits -f digits", "trial_seed is"),
    ("compare {model} -O board --chunk-size 0 -r digits -f digits", "chunk_size is 0"),
    ("compare {model} -O board --num-threads 0 -r digits -f digits", "num_threads is 0"),
    ("compare {model} -O board --dtype int8 -r digits -f digits", "unknown dtype 'int8'"),
    ("compare {model} -O board -s nobody -r digits -f digits", "nobody"),
    ("compare {model} -O board -o nobody=1 -r digits -f digits", "nobody"),
    ("compare {model} -O board --metric banana -r digits -f digits", "banana"),
    ("compare {model} -O board -r digits", "features"),
    ("compare {model} -O board -r digits -f nobody", "nobody"),
    ("compare {model} -O board -r nowhere.safetensors", "nowhere.safetensors"),
    ("compare {model} -O file.txt -r digits -f digits", "file.txt"),
    ("compare {model} -O full -r digits -f digits", "full"),
    # Samplers and results.
    ("verify nobody", "nobody"),
    ("verify langevin --picture curves.jpg", ".png"),
    ("verify langevin --picture full", "full"),
    ("reproduce banana", "banana"),
    ("reproduce noise-corrected-langevin -O file.txt", "file.txt"),
    ("samplers more", "more"),
    ("plugins more", "more"),
    ("info nowhere", "there is no model 'nowhere'"),
    ("info file.txt", "file.txt"),
    ("info full", "no pipeline folder"),
    ("demo-2d --target banana", "banana"),
    ("demo-2d --target spectrum", "plane"),
    ("demo-2d -s nobody", "nobody"),
    ("demo-2d -n 1", "num_samples is 1"),
    (f"demo-2d -n {10**12}", "num_samples is 1000000000000"),
    (f"demo-2d -n {GOOGOL}", "num_samples is"),
    ("demo-2d -t 0", "num_inference_steps is 0"),
    (f"demo-2d -t {10**15}", "num_inference_steps is 1000000000000000"),
    ("demo-2d --seed=-1", "seed is -1"),
    (f"demo-2d --seed {HUGE}", "seed is 9223372036854775808"),
    ("demo-2d --frames 1", "num_frames is 1"),
    ("demo-2d -o nobody=1", "nobody"),
    ("demo-2d -n 2 -t 10 --frames 2 -O full", "full"),
    ("demo-2d -n 2 -t 10 --frames 2 -O demo.png", ".gif"),
    ("demo-2d -n 2 -t 10 --frames 2 --png last.gif", ".png"),
    # Models from elsewhere, and to elsewhere.
    ("convert nowhere.pth out", "nowhere.pth"),
    ("convert file.txt out", "file.txt"),
    ("convert full out", "full"),
    ("convert file.txt", "OUTPUT_DIR"),
    ("convert {checkpoint} full", "full"),
    ("convert {checkpoint} file.txt", "file.txt"),
    ("convert {checkpoint} out --config nowhere.yml", "nowhere.yml"),
    ("convert {checkpoint} out --dataset banana", "banana"),
    ("convert {checkpoint} out --source banana", "banana"),
    ("push nowhere me/net", "nowhere"),
    ("push full me/net", "no pipeline folder"),
    ("push {model} banana", "NAMESPACE/NAME"),
    ("push {model} a/b/c", "NAMESPACE/NAME"),
    ("push {model} 'me/n et'", "NAMESPACE/NAME"),
    ("push {model}", "NAMESPACE/NAME"),
    ("pull banana", "banana"),
    ("pull a/b/c", "a/b/c"),
    ("pull me/nowhere", "me/nowhere"),
    ("pull {model} -O full", "full"),
    ("pull {model} -O file.txt", "file.txt"),
    ("pull {model} -O out --revision v1", "no revisions"),
    ("pull {model} -O out --variant banana", "banana"),
    ("new-sampler 'Bad Name'", "Bad Name"),
    ("new-sampler ../x", "../x"),
    ("new-sampler langevin", "langevin"),
    ("new-sampler mine --kind banana", "banana"),
    ("new-sampler mine -O file.txt", "file.txt"),
    # Training.
    ("train --output-dir out", "--dataset"),
    ("train --dataset digits", "--output-dir"),
    ("train --dataset nowhere.parquet --output-dir out", "nowhere.parquet"),
    ("train --dataset file.txt --output-dir out", "file.txt"),
    ("train --dataset empty --output-dir out", "empty"),
    ("train --dataset digits --split banana --output-dir out", "banana"),
    ("train --dataset digits --held-out nowhere.parquet --output-dir out", "nowhere.parquet"),
    ("train --dataset digits --held-out digits --held-out-split banana --output-dir out", "banana"),
    ("train --dataset {set} --output-dir file.txt", "file.txt"),
    ("train --dataset {set} --output-dir out --model banana", "banana"),
    ("train --dataset {set} --output-dir out -m nobody=1", "nobody"),
    ("train --dataset {set} --output-dir out -m sample_size=-8", "sample_size is -8"),
    ("train --dataset {set} --output-dir out -m sample_size=huge", "sample_size is 'huge'"),
    ("train --dataset digits --output-dir out -m sample_size", "KEY=VALUE"),
    ("train --dataset {set} --output-dir out -s nobody", "nobody"),
    ("train --dataset {set} --output-dir out -o nobody=1", "nobody"),
    ("train --dataset digits --output-dir out --max-train-steps 0", "max_train_steps is 0"),
    ("train --dataset digits --output-dir out --max-train-steps=-1", "max_train_steps is -1"),
    (f"train --dataset digits --output-dir out --max-train-steps {GOOGOL}", "max_train_steps is"),
    ("train --dataset digits --output-dir out --train-batch-size 0", "train_batch_size is 0"),
    ("train --dataset {set} --output-dir out --train-batch-size 2000", "2000"),
    ("train --dataset digits --output-dir out --learning-rate 0", "learning_rate is 0"),
    ("train --dataset digits --output-dir out --learning-rate=-1", "learning_rate is -1"),
    ("train --dataset digits --output-dir out --learning-rate nan", "learning_rate is nan"),
    ("train --dataset digits --output-dir out --learning-rate inf", "learning_rate is inf"),
    ("train --dataset digits --output-dir out --learning-rate fast", "'fast'"),
    ("train --dataset digits --output-dir out --lr-scheduler banana", "lr_scheduler is 'banana'"),
    ("train --dataset digits --output-dir out --lr-warmup-steps=-1", "lr_warmup_steps is -1"),
    ("train --dataset digits --output-dir out --max-grad-norm 0", "max_grad_norm is 0"),
    ("train --dataset digits --output-dir out --max-grad-norm nan", "max_grad_norm is nan"),
    ("train --dataset digits --output-dir out --ema-decay 1", "ema_decay is 1"),
    ("train --dataset digits --output-dir out --ema-decay nan", "ema_decay is nan"),
    ("train --dataset digits --output-dir out --sigma-distribution banana", "banana"),
    ("train --dataset digits --output-dir out --log-sigma-std=-1", "log_sigma_std is -1"),
    ("train --dataset digits --output-dir out --log-sigma-std nan", "log_sigma_std is nan"),
    ("train --dataset digits --output-dir out --log-sigma-mean inf", "log_sigma_mean is inf"),
    ("train --dataset digits --output-dir out --loss-weighting banana", "banana"),
    ("train --dataset digits --output-dir out --mixed-precision banana", "banana"),
    ("train --dataset digits --output-dir out --seed=-1", "seed is -1"),
    (f"train --dataset digits --output-dir out --seed {HUGE}", "seed is 9223372036854775808"),
    ("train --dataset digits --output-dir out --checkpoint-every 0", "--checkpoint-every"),
    ("train --dataset digits --output-dir out --sample-every=-1", "--sample-every"),
    ("train --dataset {set} --output-dir out --tracker banana", "banana"),
    ("train --dataset digits --output-dir out --num-workers=-1", "--num-workers"),
    ("train-classifier --dataset digits --output-dir out", "--test"),
    ("train-classifier --dataset nowhere.parquet --test digits --output-dir out", "nowhere"),
    ("train-classifier --dataset {set} --test digits --output-dir out", "label"),
    ("train-classifier --dataset digits --test digits --output-dir file.txt", "file.txt"),
    ("train-classifier --dataset digits --test digits --output-dir out --num-epochs 0", "0"),
    ("train-classifier --dataset digits --test digits --output-dir out --learning-rate nan", "nan"),
    ("train-classifier --dataset digits --test digits --output-dir out --seed=-1", "seed is -1"),
    # Other images.
    ("ood {model} --in digits", "--out"),
    ("ood {model} --in nowhere --out noise", "'nowhere'"),
    ("ood {model} --in digits --out file.txt", "file.txt"),
    (f"ood {{model}} --in digits --out noise -n {GOOGOL}", "num_images is"),
    ("ood {model} --in digits --out noise -n 5 --sigma nan", "sigmas[0] is nan"),
    ("ood {model} --in digits --out noise -n 5 --sigma 1e9", "noise level"),
    ("ood {model} --in digits --out noise -n 5 -O full", "full"),
    # Nearest images.
    ("neighbours digits nowhere", "'nowhere'"),
    ("neighbours digits digits -k 0", "num_neighbours is 0"),
    (f"neighbours digits digits -k {GOOGOL}", "num_neighbours is"),
    ("neighbours digits digits -n 0", "num_images is 0"),
    ("neighbours digits digits --num-shown 0", "--num-shown"),
    ("neighbours digits digits --real digits -n 5", "at least 20"),
    ("neighbours digits digits --resolution 4", "bring the data to the same size"),
    ("neighbours digits digits --center-crop 9", "center_crop is 9"),
    ("neighbours digits digits -f nobody", "unknown feature extractor 'nobody'"),
    ("neighbours digits digits -O full", "full"),
    ("neighbours digits digits -O out.jpg", ".png"),
    ("train --dataset digits --output-dir out --center-crop 0", "center_crop is 0"),
    ("train --dataset digits --output-dir out --center-crop 9", "center_crop is 9"),
    (
        "train --dataset digits --output-dir out --resize --image-interpolation-mode cubic",
        "allowed are bicubic",
    ),
]


def empty_words():
    """Every argument and every option of every command, given as nothing."""
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                yield f"{name} ''"
            elif not parameter.is_flag:
                yield f"{name} {parameter.opts[0]} ''"
                if name == "sample":
                    yield f"{name} {parameter.opts[0]}='  '"


@pytest.fixture(scope="module")
def paths(tiny_model, tmp_path_factory):
    """What cases name in braces."""
    import torch

    from hdzoo import NCSNModel

    folder = tmp_path_factory.mktemp("paths")
    for name, count in (("set", 30), ("few", 10)):
        (folder / name).mkdir()
        for i in range(count):
            Image.new("L", (8, 8), 8 * i).save(folder / name / f"{i}.png")
    weights = NCSNModel(sample_size=8, in_channels=1, base_channels=2).state_dict()
    weights = {f"module.{key}": value for key, value in weights.items() if key != "sigmas"}
    torch.save([weights, {}], folder / "checkpoint.pth")
    return {
        "model": tiny_model,
        "set": folder / "set",
        "few": folder / "few",
        "checkpoint": folder / "checkpoint.pth",
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with what may be mistaken for something else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    Path("file.txt").write_text("words")
    Path("full").mkdir()
    Path("full/diary.txt").write_text("more words")
    Path("empty").mkdir()
    Image.new("L", (8, 8), 100).save("picture.png")
    Image.new("L", (5, 3), 100).save("wide.png")
    Image.new("L", (8, 8), 255).save("mask.png")
    return tmp_path


def contents(folder):
    # The lock of a folder stays, as of any that was in use.
    found = (path for path in sorted(folder.rglob("*")) if path.name != ".lock")
    return {path: path.is_file() and path.read_bytes() for path in found}


def refused(run, here, words):
    """The message of a command that must be refused with one, and write nothing."""
    before = contents(here)
    code, out, err = run(*words)
    assert code == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert contents(here) == before
    # A sentence, not a name or a bare repr.
    assert len(line.split()) > 3
    return line


@pytest.mark.parametrize(("command", "said"), CASES, ids=[command for command, _ in CASES])
def test_a_bad_input_is_one_message_and_writes_nothing(run, here, paths, command, said):
    message = refused(run, here, shlex.split(command.format(**paths)))
    assert said.casefold() in message.casefold()


@pytest.mark.parametrize("command", sorted(set(empty_words())))
def test_an_empty_word_is_refused(run, here, command):
    assert "is empty; give a value, or leave it out" in refused(run, here, shlex.split(command))
