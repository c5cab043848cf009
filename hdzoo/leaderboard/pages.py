"""A leaderboard for people: a table in Markdown, a plot of quality against cost, a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hdzoo.files import whole_file, write_json
from hdzoo.leaderboard.board import DATA, Entry, Leaderboard
from hdzoo.leaderboard.ranking import WIDTH, difference, matrix
from hdzoo.markdown import fenced, prose, table
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.report import plus_minus
from hdzoo.plots import save_figure, style
from hdzoo.text import counted, plain

PAGE, PLOT, PICTURE = "leaderboard.md", "quality.png", "samples.png"
PICTURES = 12


def write_page(board: Leaderboard) -> None:
    """Writes ``leaderboard.json`` and ``leaderboard.md`` into the folder."""
    write_json(board.folder / DATA, board.to_dict())
    with whole_file(board.folder / PAGE) as partial:
        partial.write_text(markdown(board))


def write_pictures(board: Leaderboard) -> None:
    """Writes ``quality.png`` and ``samples.png`` into the folder, unless every sampler failed."""
    if any(board.at(cost) for cost in board.costs):
        save_figure(quality_figure(board), board.folder / PLOT)
        save_figure(samples_figure(board), board.folder / PICTURE)


# ---- the table ------------------------------------------------------------------------------


def rows(board: Leaderboard, cost: int, all_metrics: bool = True) -> list[dict[str, str]]:
    """The entries of a cost as a table, best first; those that failed come last.

    Args:
        board: of them.
        cost: network evaluations an image.
        all_metrics: or that alone by which they are ranked.
    """
    placed = board.at(cost)
    table = []
    for entry in board.entries:
        if entry.num_inference_steps != cost:
            continue
        row = {"sampler": entry.sampler, "options": options_of(entry)}
        if entry.report is None:
            row["minus the best"] = f"failed: {entry.failure}"
        else:
            best, own = placed[0].objective, entry.objective
            row[own.name] = plus_minus(own.value, own.spread)
            row["minus the best"] = "" if own is best else str(difference(best, own))
            row["seed ranges"] = ", ".join(f"{value:.4g}" for value in own.halves)
            for result in entry.report.results if all_metrics else ():
                if result is not own:
                    row[result.name] = plus_minus(result.value, result.spread)
        table.append(row)
    columns = dict.fromkeys(key for row in table for key in row)
    return [{column: row.get(column, "") for column in columns} for row in table]


def options_of(entry: Entry) -> str:
    """What an entry has in the place of the model's own options."""
    said = [f"{key}={value}" for key, value in entry.options.items()]
    if entry.num_start_steps:
        said.append(f"{counted(entry.num_start_steps, 'evaluation')} for the start")
    return ", ".join(said) or "the model's own"


def markdown(board: Leaderboard) -> str:
    """The whole page."""
    protocol = board.protocol
    parts = [f"# Samplers on {prose(protocol['model'])}", summary(board)]
    for cost in board.costs:
        parts += [f"## {cost} network evaluations an image", table_of(rows(board, cost))]
        placed = board.at(cost)
        if len(placed) > 2:
            parts += [
                "The row's sampler minus the column's:",
                table_of(matrix([e.sampler for e in placed], [e.objective for e in placed])),
            ]
    if any(board.at(cost) for cost in board.costs):
        parts += [
            f"![quality against cost]({PLOT})",
            f"![the same noise in each column]({PICTURE})",
        ]
    return "\n\n".join(parts) + "\n"


def summary(board: Leaderboard) -> str:
    """The protocol in words."""
    protocol = board.protocol
    backend = protocol.get("backend", "torch")
    by = "" if backend == "torch" else f", computed by {backend}"
    said = [
        f"{counted(protocol['num_images'], 'image')} of each, seed {protocol['seed']}, "
        f"{protocol['dtype']}{by}; image i starts from the same noise with every sampler."
    ]
    if protocol["trials"]:
        said.append(
            f"Each sampler was tuned at each cost by at most "
            f"{counted(protocol['trials'], 'configuration')} of "
            f"{counted(protocol['trial_images'], 'image')}, seed {protocol['trial_seed']}, of "
            "which none is reported."
        )
    else:
        said.append("No sampler was tuned.")
    reported = [entry for cost in board.costs for entry in board.at(cost)]
    if reported:
        report, own = reported[0].report, reported[0].objective
        assert report is not None
        assert own.num_reference is not None
        floor = own.equal_size
        said.append(
            f"Samplers are ranked by {prose(own.name)}, against "
            f"{counted(own.num_reference, 'image')} of {prose(report.reference['dataset'])} "
            f"({prose(report.reference['split'])}); ± is the {own.spread_of}"
            f". Real images get {plus_minus(floor.floor, floor.floor_spread)} at "
            f"{counted(floor.num_images, 'image')}."
        )
        said.append(
            f"A difference is given ± {WIDTH} standard errors of itself, by leaving out the same "
            "blocks of images of both samplers. It is a tie if it is within that, or if its sign "
            "is not the same in the first half of the images and in the second, which are two "
            "ranges of seeds. With a tie is said how many images of each would tell, if the "
            "difference is as large as it seems."
        )
        said.append(
            f"Features: {prose(report.extractor['name'])}, weights "
            f"{report.extractor['weights_sha256']}."
        )
    said.append(f"Model weights {protocol['weights_sha256']}.")
    versions = ", ".join(f"{name} {number}" for name, number in protocol["versions"].items())
    said.append(f"Versions: {versions}.")
    text = " ".join(said)
    return f"{text}\n\n{fenced(protocol['command'], 'bash')}" if protocol["command"] else text


def table_of(content: Sequence[dict[str, str]]) -> str:
    """Rows that have the same columns as a table in Markdown."""
    return table(list(content[0]), (list(row.values()) for row in content))


# ---- the pictures ---------------------------------------------------------------------------


def quality_figure(board: Leaderboard) -> Figure:
    """Quality against cost, one line for each sampler, and what real images get."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes: Any = figure.subplots()
    lines: dict[str, list[Entry]] = {}
    for cost in board.costs:
        for entry in board.at(cost):
            lines.setdefault(entry.sampler, []).append(entry)
    for number, (sampler, entries) in enumerate(sorted(lines.items())):
        axes.errorbar(
            [entry.num_inference_steps for entry in entries],
            [entry.objective.value for entry in entries],
            [entry.objective.spread for entry in entries],
            label=sampler,
            capsize=3,
            **style(number),
        )
    own = next(iter(lines.values()))[0].objective
    floor = own.equal_size
    axes.axhline(floor.floor, color="#888888", ls=":", label=f"real images ({floor.num_images:,})")
    # Of the others a value may be 0.
    scale = "log" if own.metric in ("fid", "wfid") else "linear"
    axes.set(xscale="log", yscale=scale, xlabel="network evaluations an image")
    # Between two dollars a name would be taken for a formula.
    axes.set_ylabel(f"{own.name}, {counted(own.num_images, 'image')}", parse_math=False)
    axes.set_title(plain(f"Samplers on {board.protocol['model']}"), parse_math=False)
    axes.set_xticks(board.costs, [str(cost) for cost in board.costs])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def samples_figure(board: Leaderboard) -> Figure:
    """The first images of each sampler at the largest cost; a column starts from one noise."""
    cost = next(cost for cost in reversed(board.costs) if board.at(cost))
    placed = board.at(cost)
    count = min(PICTURES, board.protocol["num_images"])
    figure = Figure(figsize=(0.75 * count + 2.5, 0.75 * len(placed) + 0.4), layout="constrained")
    grid: Any = figure.subplots(len(placed), count, squeeze=False)
    figure.suptitle(f"{cost} network evaluations an image; each column from the same noise")
    for line, entry in zip(grid, placed, strict=True):
        images = open_images(entry.images).images[:count]
        for axes, image in zip(line, images, strict=True):
            axes.imshow(np.asarray(image), cmap="gray" if image.mode == "L" else None)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(
            f"{entry.sampler}\n{entry.objective.value:.3g}", rotation=0, ha="right", va="center"
        )
    return figure
