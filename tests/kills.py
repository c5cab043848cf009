"""Kills commands that write at random moments, and compares what they end with to a run that nobody
disturbed: the same bytes, and nothing left over.

Run alone, it goes on for so many kills: ``python tests/kills.py --kills 200``.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from safetensors import safe_open

NETWORK = ["-m", "sample_size=8", "-m", "block_out_channels=[8,16]", "-m", "norm_num_groups=4"]
# The folder "given" has what they start from; "out" is what they write.
COMMANDS = {
    "train": [
        *("train", "--dataset", "digits", "--held-out", "digits", "--output-dir", "out"),
        *(*NETWORK, "--max-train-steps", "30", "--train-batch-size", "8", "-o", "num_levels=10"),
        *("-o", "steps_per_level=5"),
        *("--checkpoint-every", "7", "--sample-every", "10", "--held-out-every", "10"),
    ],
    "convert": ["convert", "given/checkpoint.pth", "out"],
    "generate": ["generate", "given/model", "-O", "out", "-n", "24", "--chunk-size", "4"],
    "reference": ["reference", "digits", "-O", "out/reference.safetensors"],
    "sample": [
        *("sample", "given/model", "-n", "4", "-O", "out/grid.png", "--images-dir", "out/single"),
        *("--gif", "out/forming.gif"),
    ],
    "evaluate": [
        *("evaluate", "given/set", "-r", "given/reference.safetensors", "-O", "out/report.json"),
        *("--metric", "fid"),
    ],
    "pull": ["pull", "given/model", "-O", "out"],
}
# The entry of a checkpoint's metadata.
STATE = "hdzoo_training"
# What a clock has written.
VOLATILE = re.compile(rb'("seconds": |"card_sha256": "|It took )[\d.,a-f]+( s on \d+ process)?')
# Two in three kills are as sudden as a power cut.
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)


def start(arguments, folder):
    """Starts a command as a process of its own, forked from this one, which has imported all.

    Args:
        arguments: of the command.
        folder: it runs in.

    Returns:
        The process's id.
    """
    process = os.fork()
    if process:
        return process
    try:
        os.chdir(folder)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["hdzoo", *arguments]
        from hdzoo.cli import main

        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        os._exit(int(code))
    finally:
        os._exit(99)


def finish(arguments, folder):
    """Runs a command to its end."""
    _, status = os.waitpid(start(arguments, folder), 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise AssertionError(f"exit code {code}: {(folder / 'log').read_text()[-2000:]}")


def kill_once(arguments, folder, seconds, chance):
    """Runs a command and kills it within so many seconds; whether it was in time."""
    begin = time.monotonic()
    process = start(arguments, folder)
    moment = begin + chance.uniform(0, seconds)
    while time.monotonic() < moment:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, (folder / "log").read_text()[-2000:]
            return False
        time.sleep(0.001)
    os.kill(process, chance.choice(SIGNALS))
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    # A command that is done, or has not begun, ends by the signal itself.
    ended = 0, 128 + signal.SIGTERM, *(-number for number in SIGNALS)
    assert code in ended, (folder / "log").read_text()[-2000:]
    return code != 0


def content(folder):
    """All files of a folder and what is in them, but for locks, logs and the time it took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (".lock", "log"):
            name = path.relative_to(folder).as_posix()
            inside = checkpoint(path) if "checkpoints/" in name else path.read_bytes()
            found[name] = VOLATILE.sub(b"", inside)
    return found


def checkpoint(path):
    """What a checkpoint has, without its checksum, which is of the time it took as well."""
    with safe_open(path, "np") as file:
        tensors = [(name, file.get_tensor(name).tobytes()) for name in sorted(file.keys())]
        return b"\n".join([file.metadata()[STATE].encode(), *(v for _, v in tensors)])


def prepare(folder):
    """Makes what the commands start from, in processes of their own."""
    given = folder / "given"
    given.mkdir(parents=True)
    process = os.fork()
    if not process:
        code = 1
        try:
            make(given)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    finish(["generate", "model", "-O", "set", "-n", "24", "-t", "4"], given)
    finish(["reference", "digits", "-O", "reference.safetensors"], given)


def make(given):
    import torch

    from hdzoo import HDPipeline, NCSNModel, UNetScoreModel, get_sampler
    from hdzoo.conversion.families import published_keys

    torch.manual_seed(0)
    network = UNetScoreModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4)
    sampler = get_sampler("annealed-langevin")(
        sigma_max=2.0, num_levels=4, steps_per_level=8, prediction_type="sample"
    )
    HDPipeline(network, sampler).save_pretrained(given / "model", max_shard_size="20KB")
    network = NCSNModel(base_channels=2)
    names, state = published_keys(network), network.state_dict()
    weights = {f"module.{names[key]}": value for key, value in state.items()}
    torch.save([weights, {"state": {}, "param_groups": []}], given / "checkpoint.pth")


def kill(name, folder, kills, chance):
    """Kills a command so many times, and compares what it ends with.

    Args:
        name: of `COMMANDS`.
        folder: from `prepare`.
        kills: how many.
        chance: of the moments.

    Returns:
        The number of times that it was brought to its end, each the same as undisturbed.
    """
    arguments, whole = COMMANDS[name], folder / f"{name}-whole"
    for place in (whole, folder / name):
        place.mkdir()
        (place / "given").symlink_to(folder / "given")
    begin = time.monotonic()
    finish(arguments, whole)
    seconds, expected = time.monotonic() - begin, content(whole)
    assert any(file.startswith("out/") for file in expected)
    done = ends = 0
    while done < kills:
        for _ in range(chance.randint(1, 4)):
            done += kill_once(arguments, folder / name, seconds, chance)
        finish(arguments, folder / name)
        ends += 1
        found = content(folder / name)
        assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
        differ = [file for file in expected if found[file] != expected[file]]
        assert not differ, differ
        shutil.rmtree(folder / name / "out")
    return ends


def import_all():
    """What the commands need, so that each begins at once."""
    import diffusers.pipelines
    import scipy.optimize  # noqa: F401

    import hdzoo.cli
    import hdzoo.conversion.convert
    import hdzoo.generation.generate
    import hdzoo.hub.pulling
    import hdzoo.metrics.digit_features
    import hdzoo.metrics.report
    import hdzoo.training.trainer  # noqa: F401

    assert diffusers.UNet2DModel


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="In all.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("--command", action="append", choices=list(COMMANDS), help="Default: all.")
    options = parser.parse_args()
    import_all()
    names = options.command or list(COMMANDS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        for name in names:
            kills = -(-options.kills // len(names))
            ends = kill(name, folder, kills, random.Random(f"{options.seed} {name}"))
            print(f"{name}: {kills} kills, {ends} times brought to its end, the same", flush=True)


if __name__ == "__main__":
    main()
