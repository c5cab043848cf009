"""Do hdzoo's classes pass diffusers' own tests of schedulers, networks and pipelines?

    git clone --depth 1 --branch v0.40.0 https://github.com/huggingface/diffusers
    pip install parameterized requests-mock
    python benchmarks/diffusers_suites.py diffusers

runs ``SchedulerCommonTest``, ``ModelTesterMixin``, ``TrainingTesterMixin`` and
``PipelineTesterMixin``, which are in its repository and not in its package, on all samplers,
networks and pipelines of hdzoo, with the diffusers that is installed. Prints what passed, what
failed, and what cannot apply, with the reason; the exit code is 1 if anything failed. Further
arguments are pytest's, such as ``-k Heun``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# What pytest collects; the classes are made here.
MODULE = """\
from diffusers_suites import suites

globals().update(suites())
"""
CONFTEST = """\
import pytest
from diffusers_suites import CANNOT_APPLY


def pytest_collection_modifyitems(items):
    for item in items:
        reason = CANNOT_APPLY.get(item.name.partition("[")[0])
        if reason:
            item.add_marker(pytest.mark.skip(reason="cannot apply: " + reason))
"""
# Tests of theirs that no class of hdzoo can pass, and why.
CANNOT_APPLY = {
    "test_trained_betas": "the samplers walk in noise levels and have no betas",
    "test_from_pretrained": (
        "deletes the entry _use_default_values, which a sampler's configuration has not: with it "
        "another class would forget what the network is told. A saved sampler's options come back: "
        "test_from_save_pretrained here, tests/samplers/test_contract.py"
    ),
    "test_loading_with_incorrect_variants_raises_error": (
        "compares the words of diffusers' message; hdzoo refuses with a ValueError as well, which "
        "lists the variants that are there: tests/pipelines/test_loading.py"
    ),
}


def suites() -> dict[str, type]:
    """Classes of tests, by name; ``tests`` is the package of diffusers' repository."""
    import torch
    from tests.models.testing_utils import (
        BaseModelTesterConfig,
        ModelTesterMixin,
        TrainingTesterMixin,
    )
    from tests.pipelines.test_pipelines_common import PipelineTesterMixin
    from tests.schedulers.test_schedulers import SchedulerCommonTest

    import hdzoo
    from hdzoo.builtin import hdzoo_samplers

    found: dict[str, type] = {}

    def add(subject: type, *bases: type, **content: Any) -> type:
        name = f"Test{subject.__name__}"
        found[name] = type(name, bases, content)
        return found[name]

    for sampler in map(hdzoo.get_sampler, hdzoo_samplers()):
        add(
            sampler,
            SchedulerCommonTest,
            scheduler_classes=(sampler,),
            get_scheduler_config=lambda self, **options: options,
        )

    small = {"sample_size": 8, "in_channels": 3}
    unet = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    ncsnpp = {"base_channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1}
    networks: dict[type, dict[str, Any]] = {
        hdzoo.UNetScoreModel: {**small, **unet, "add_attention": True},
        hdzoo.NCSNModel: {**small, "base_channels": 4},
        hdzoo.NCSNv2Model: {**small, "base_channels": 4},
        hdzoo.NCSNppModel: {**small, **ncsnpp, "attention_resolutions": (4,)},
        hdzoo.NCSNUNetModel: {"unet_options": {**small, "out_channels": 3, **unet, **blocks}},
    }

    def network_inputs(self: Any) -> dict[str, Any]:
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return {"sample": images, "timestep": torch.full((4,), 0.5)}

    for network, options in networks.items():
        add(
            network,
            BaseModelTesterConfig,
            ModelTesterMixin,
            TrainingTesterMixin,
            model_class=network,
            main_input_name="sample",
            output_shape=(3, 8, 8),
            get_init_dict=lambda self, options=options: dict(options),
            get_dummy_inputs=network_inputs,
        )

    def components(self: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        sampler = hdzoo.AnnealedLangevinSampler(
            sigma_max=2.0, num_levels=3, prediction_type="sample"
        )
        return {"unet": hdzoo.UNetScoreModel(**small, **unet), "scheduler": sampler}

    def call(device: Any, seed: int) -> dict[str, Any]:
        generator = torch.Generator(device).manual_seed(seed)
        return {"generator": generator, "num_inference_steps": 6, "output_type": "np"}

    def drawn(self: Any, device: Any, seed: int = 0) -> dict[str, Any]:
        return {"batch_size": 1, **call(device, seed)}

    def painted(self: Any, device: Any, seed: int = 0) -> dict[str, Any]:
        mask = torch.zeros(1, 8, 8)
        mask[:, 2:5] = 1
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
        return {"image": image, "mask_image": mask, **call(device, seed)}

    # Their own tests of pipelines without a prompt leave it out, too.
    optional = PipelineTesterMixin.required_optional_params - {"num_images_per_prompt"}
    for pipeline, inputs, params, batch_params in (
        (hdzoo.HDPipeline, drawn, {"batch_size"}, set()),
        (hdzoo.HDInpaintPipeline, painted, *[{"image", "mask_image"}] * 2),
    ):
        add(
            pipeline,
            PipelineTesterMixin,
            unittest.TestCase,
            pipeline_class=pipeline,
            params=frozenset(params),
            batch_params=frozenset(batch_params),
            required_optional_params=optional,
            test_layerwise_casting=True,
            test_group_offloading=True,
            get_dummy_components=components,
            get_dummy_inputs=inputs,
        )
    return found


def run(checkout: Path, folder: Path, arguments: list[str]) -> Path:
    """Runs the tests in a process of their own.

    Args:
        checkout: of diffusers' repository.
        folder: for the module that pytest collects, and its report.
        arguments: for pytest.

    Returns:
        The report, as JUnit's XML.
    """
    (folder / "test_hdzoo.py").write_text(MODULE)
    (folder / "conftest.py").write_text(CONFTEST)
    report = folder / "report.xml"
    here = Path(__file__).parent
    paths = [str(here.parent), str(here), str(checkout), os.environ.get("PYTHONPATH", "")]
    quiet = ["-q", "-W", "ignore", "-p", "no:cacheprovider", "--tb=short"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, f"--junitxml={report}", *arguments, "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    return report


def show(report: Path) -> int:
    """Prints how often each class passed and failed, and why the rest does not apply.

    Returns:
        How many failed.
    """
    counts: dict[str, Counter[str]] = {}
    reasons: dict[tuple[str, str], int] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname", "").rpartition(".")[2].removeprefix("Test")
        skipped = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        end = "failed" if failed else "passed" if skipped is None else "not applicable"
        counts.setdefault(name, Counter())[end] += 1
        if skipped is not None:
            test = case.get("name", "").partition("[")[0]
            reasons[test, skipped.get("message", "")] += 1
    table = Table("class", "passed", "failed", "not applicable")
    total = sum(counts.values(), Counter())
    for name, ends in [*counts.items(), ("all", total)]:
        table.add_row(name, *(str(ends[str(column.header)]) for column in table.columns[1:]))
    why = Table("test", "times", "why it does not apply")
    for (test, reason), times in sorted(reasons.items()):
        why.add_row(test, str(times), reason)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table, why)
    return total["failed"] if total else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="Of diffusers' repository.")
    options, arguments = parser.parse_known_args()
    checkout = options.checkout.resolve()
    if not (checkout / "tests" / "schedulers" / "test_schedulers.py").is_file():
        parser.error(f"{checkout} is no checkout of diffusers: it has no tests/schedulers")
    with tempfile.TemporaryDirectory() as folder:
        report = run(checkout, Path(folder), arguments)
        if not report.is_file():
            sys.exit("pytest wrote no report; see above")
        sys.exit(1 if show(report) else 0)


if __name__ == "__main__":
    main()
