"""What do a reference's metrics say of real images, at several numbers of them?

    python benchmarks/real_floor.py REFERENCE.safetensors TRAIN.parquet --num-images 256 1000 2000

judges real images that are not in the reference as `hdzoo evaluate` judges generated ones: no model
can expect better at the same number. Fréchet distance, inception score, precision and recall depend
on that number. Data are named as in `hdzoo train`. Prints a table and writes JSON.
"""

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path

import torch
from accelerate.utils import tqdm
from rich.console import Console
from rich.table import Table

from hdzoo.environment import versions
from hdzoo.metrics.comparison import judge
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.reference import load_reference
from hdzoo.metrics.report import plus_minus

METRICS = ("fid", "kid", "isc", "prc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("images")
    parser.add_argument("--split", default="train")
    parser.add_argument("--num-images", type=int, nargs="+", default=[256, 1000, 2000])
    parser.add_argument("--output", type=Path, default=Path("runs/real-floor.json"))
    args = parser.parse_args()

    reference = load_reference(args.reference)
    extractor = get_extractor(reference.protocol["extractor"])
    reference.check_extractor(extractor)
    images = open_images(args.images, args.split)
    chosen = images.spread(max(args.num_images))
    bar = tqdm(images.batches(256, chosen), desc="batches of 256 images")
    batches = [extractor(batch) for batch in bar]
    layers = {name: torch.cat([one[name].float().cpu() for one in batches]) for name in batches[0]}
    # In another order, so that those of a part are spread over the set too.
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    found = {}
    for number in tqdm(args.num_images, desc="numbers of images"):
        part = {name: values[order[:number]] for name, values in layers.items()}
        found[number] = [r for m in METRICS for r in judge(m, part, reference, extractor)]
    table = Table("real images", *(r.name.partition(" (")[0] for r in found[args.num_images[0]]))
    for number, results in found.items():
        table.add_row(f"{number:,}", *(plus_minus(r.value, r.spread) for r in results))
        equal = results[0].equal_size.num_images
        # The reference has the features of twice as many at least.
        if equal == number:
            floors = (plus_minus(r.equal_size.floor, r.equal_size.floor_spread) for r in results)
            table.add_row(f"{equal:,} of the reference\nagainst {equal:,} others", *floors)
    table.title = f"{extractor.label}, against {reference.protocol['dataset']}"
    Console().print(table)
    report = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "versions": versions("torch", "torch-fidelity", "numpy"),
        "reference": reference.protocol,
        "images": {"source": args.images, "split": args.split, "num_images": len(images)},
        "found": {n: [dataclasses.asdict(r) for r in results] for n, results in found.items()},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
