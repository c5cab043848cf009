"""Comparing samplers on one model at equal cost, each tuned by the same search."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from hdzoo import plugins
from hdzoo.catalog import network_options, weights_hash
from hdzoo.checks import Many, Whole
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import (
    check_folder,
    check_no_link,
    exclusive,
    file_hash,
    named_path,
)
from hdzoo.generation.generate import generate
from hdzoo.generation.manifest import read_manifest
from hdzoo.hub.resolve import resolve_model
from hdzoo.leaderboard.board import Entry, Leaderboard, Trial, loss, rank
from hdzoo.leaderboard.settings import Settings, keep_protocol
from hdzoo.leaderboard.tuning import candidates
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.image_sets import open_images
from hdzoo.metrics.reference import SUFFIX, load_reference, reference_of
from hdzoo.metrics.report import Report, evaluate, load_report
from hdzoo.processes import all_processes, in_first_process
from hdzoo.samplers.ladders import MAX_EVALUATIONS
from hdzoo.sampling import find_dtype, load_pipeline
from hdzoo.text import counted

COST = Whole(2, MAX_EVALUATIONS)
# What progress calls all the work that is left.
ALL = "network evaluations"


def compare(
    model: str | Path,
    output_dir: str | Path,
    *,
    samplers: Sequence[str] | None = None,
    num_inference_steps: Sequence[int] = (50, 100, 200),
    command: str | None = None,
    on_entry: Callable[[Leaderboard], None] | None = None,
    on_progress: Callable[[str, float, float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    **settings: Any,
) -> Leaderboard:
    """Draws images with each sampler at each cost, judges them, and ranks the samplers.

    Every sampler gets the same number of network evaluations for each image; one that walks at a
    single level spends half of them on images to start from, by the model's own sampler. Before, it
    is tuned at that cost: of some configurations (`candidates`) the one is taken whose images of
    another seed are best by what samplers are ranked by (``rank_by``). So the search has the same
    budget for all, and its images are none of those that are reported.

    Image i starts from the same noise with every sampler. One that fails, with whatever error, is
    an entry that says so. A call on a folder goes on where the last one stopped; samplers and costs
    may be added. Run it in every process of a launcher, as `generate`.

    Args:
        model: a folder, a bundled name, or a Hub id.
        output_dir: the folder, new or empty or of this comparison.
        samplers: registered names; all by default, those of other packages included.
        num_inference_steps: the costs.
        command: what the user typed, for the record.
        on_entry: called in the first process after each entry, with what there is.
        on_progress: called in the first process with what is done, how much of it, and of how much;
            with `ALL`, of everything that is left for this call.
        on_note: called in the first process with each thing to tell.
        **settings: `Settings`.

    Raises:
        HDZooError: an argument does not fit, or the folder is of another comparison.
    """
    names = list(dict.fromkeys(samplers or plugins.list_samplers()))
    for name in names:
        plugins.provider("samplers", name)
    Many(COST)("num_inference_steps", list(num_inference_steps))
    folder = named_path(output_dir, "output_dir")
    run = Run(model, folder, Settings(**settings), command, on_progress, on_note)
    in_first_process(run.state, lambda: check_folder(run.folder))
    run.check_options(names)
    run.check_reference()
    protocol = run.protocol()
    costs = sorted(set(num_inference_steps))
    run.plan(len(names), costs)
    entries: list[Entry] = []
    with ExitStack() as stack:
        in_first_process(run.state, lambda: stack.enter_context(exclusive(run.folder)))
        in_first_process(run.state, lambda: keep_protocol(run.folder, protocol))
        for steps in costs:
            for name in names:
                entries.append(run.entry(name, steps))
                board = Leaderboard(run.folder, protocol, sorted(entries, key=rank))
                if run.state.is_main_process and on_entry is not None:
                    on_entry(board)
    return board


class Run:
    """A comparison while it runs."""

    def __init__(
        self,
        model: str | Path,
        folder: Path,
        settings: Settings,
        command: str | None,
        on_progress: Callable[[str, float, float], None] | None,
        on_note: Callable[[str], None] | None,
    ) -> None:
        self.model = model
        self.folder = folder
        self.settings = settings
        self.command = command
        self.on_progress = on_progress
        self.on_note = on_note
        self.state = all_processes()
        # Network evaluations: done, of all, and of the entries that have not begun.
        self.done, self.total, self.ahead = 0.0, 0.0, 0

    @cached_property
    def saved(self) -> Path | None:
        """The file of the reference; None if the reference is images."""
        given = self.settings.reference
        if given is not None:
            return Path(given) if str(given).endswith(SUFFIX) else None
        try:
            return reference_of(self.model, self.settings.features)
        except HDZooError as error:
            raise HDZooError(
                f"{error}; or give a reference yourself: images, with features, or a file of "
                "`hdzoo reference`"
            ) from error

    def protocol(self) -> dict[str, Any]:
        """All that the entries depend on, but for their samplers and costs."""
        metrics, folder = self.settings.metrics, resolve_model(self.model)
        settings = vars(self.settings) | {"metrics": None if metrics is None else list(metrics)}
        return {
            "model": str(self.model),
            "weights_sha256": weights_hash(folder),
            "network_options": network_options(folder),
            **settings,
            "dtype": str(find_dtype(self.settings.dtype)).removeprefix("torch."),
            "reference": None if self.settings.reference is None else str(self.settings.reference),
            "reference_sha256": file_hash(self.saved) if self.saved is not None else None,
            "weights": None if self.settings.weights is None else str(self.settings.weights),
            "versions": versions("torch", "diffusers", "torch-fidelity"),
            "command": self.command,
        }

    def check_options(self, names: Sequence[str]) -> None:
        """Refuses an option that not one of the samplers has."""
        for option in self.settings.options:
            if not any(option in self.given(name) for name in names):
                raise HDZooError(f"none of {', '.join(names)} has an option {option!r}")

    @property
    def metrics(self) -> list[str] | None:
        """Those of each set; None for all that can be had with the features."""
        given = self.settings.metrics
        return None if given is None else list(dict.fromkeys((self.settings.objective, *given)))

    def check_reference(self) -> None:
        """Refuses what nothing could be judged by, before anything is drawn."""
        settings, features = self.settings, self.settings.features
        if self.saved is not None:
            features = features or load_reference(self.saved).known_extractor()
        elif settings.features is None:
            raise HDZooError(
                "with images as reference the metrics need the name of their features; give one of "
                f"{', '.join(plugins.names('feature_extractors'))}"
            )
        else:
            images = open_images(
                str(settings.reference), settings.reference_split, settings.reference_image_column
            )
            for _ in images.batches():
                pass
        assert features is not None
        extractor = get_extractor(features, settings.weights)
        extractor.check_metrics([settings.objective, *(self.metrics or ())])

    def plan(self, num_samplers: int, costs: Sequence[int]) -> None:
        """Tells how much there is to do, at most: few trials, and sets that are there, take less.

        Args:
            num_samplers: to compare.
            costs: at which.
        """
        self.ahead = num_samplers * sum(map(self.most, costs))
        self.note(
            f"{counted(num_samplers, 'sampler')} at {counted(len(costs), 'cost')}, "
            f"{counted(self.most(1), 'image')} of each: at most {self.ahead:,} {ALL}"
        )
        self.progress(ALL, 0, self.ahead)

    def most(self, steps: int) -> int:
        """The network evaluations of an entry that is tuned in full."""
        settings = self.settings
        return steps * (settings.trials * (settings.trial_images or 0) + settings.num_images)

    def given(self, sampler: str) -> dict[str, Any]:
        """The options for all that a sampler has."""
        try:
            known = inspect.signature(plugins.get_sampler(sampler).__init__).parameters
        except HDZooError:
            # It cannot be imported, which its entry will say.
            return self.settings.options
        return {key: value for key, value in self.settings.options.items() if key in known}

    def entry(self, sampler: str, steps: int) -> Entry:
        """Tunes a sampler at a cost, draws its images, and judges them.

        Args:
            sampler: its registered name.
            steps: network evaluations for each image, all told.
        """
        name, given = f"{sampler}-{steps}", self.given(sampler)
        images, trials, start_steps = self.folder / "sets" / name, list[Trial](), 0
        self.total = self.done + self.ahead
        self.ahead -= self.most(steps)
        try:
            if not getattr(plugins.get_sampler(sampler), "starts_from_noise", True):
                start_steps = steps // 2
            options, trials = self.tune(name, sampler, given, steps, start_steps)
            report = self.judge(
                images,
                sampler,
                given | options,
                (steps, start_steps),
                (self.settings.num_images, self.settings.seed),
                self.metrics,
            )
        # Whatever another's code raises is that sampler's failure, not the comparison's.
        except Exception as error:
            self.note(f"{name} failed: {describe(error)}")
            end: tuple[Report | None, str | None] = None, describe(error)
        else:
            given, end = given | options, (report, None)
        return Entry(
            sampler, steps, start_steps, given, trials, images, *end, self.settings.rank_by
        )

    def tune(
        self, name: str, sampler: str, given: dict[str, Any], steps: int, start_steps: int
    ) -> tuple[dict[str, Any], list[Trial]]:
        """The best options of a sampler at a cost, and all that were tried."""
        if not self.settings.trials:
            return {}, []
        trial_images = self.settings.trial_images or 0
        pipe = load_pipeline(self.model, sampler, given)
        tried = candidates(pipe, steps - start_steps, self.settings.trials, given)
        needed = len(tried) if len(tried) > 1 else 0
        self.total -= (self.settings.trials - needed) * trial_images * steps
        if not needed:
            return tried[0], []
        trials = []
        for number, options in enumerate(tried):
            value, failure = None, None
            try:
                report = self.judge(
                    self.folder / "trials" / f"{name}-{number}",
                    sampler,
                    given | options,
                    (steps, start_steps),
                    (trial_images, self.settings.trial_seed),
                    [self.settings.objective],
                )
                value = report[self.settings.rank_by].value
            except Exception as error:
                failure = describe(error)
            trials.append(Trial(options, value, failure))
        by, found = self.settings.rank_by, [(n, t.value) for n, t in enumerate(trials)]
        values = {number: loss(by, value) for number, value in found if value is not None}
        if not values:
            raise HDZooError(f"no configuration works; the first fails so: {trials[0].failure}")
        return trials[min(values, key=lambda number: values[number])].options, trials

    def judge(
        self,
        folder: Path,
        sampler: str,
        options: dict[str, Any],
        cost: tuple[int, int],
        images: tuple[int, int],
        metrics: list[str] | None,
    ) -> Report:
        """Draws a set, or what it lacks, and judges it, unless that is done.

        Args:
            folder: of the set.
            sampler: its registered name.
            options: of it.
            cost: network evaluations, all told, and those of the start.
            images: how many, and their seed.
            metrics: of the set; None for all that can be had.
        """
        num_images, seed = images
        check_no_link(folder)
        before, missing = self.done, num_images

        def on_plan(num_missing: int, _: int) -> None:
            nonlocal missing
            missing = num_missing
            self.total -= (num_images - missing) * cost[0]

        def on_progress(done: float) -> None:
            self.progress(folder.name, done, num_images)
            self.done = before + (missing - num_images + done) * cost[0]
            self.progress(ALL, self.done, self.total)

        generate(
            self.model,
            folder,
            num_images,
            sampler=sampler,
            options=options,
            num_inference_steps=cost[0] - cost[1],
            start_num_inference_steps=cost[1] or None,
            seed=seed,
            command=self.command,
            on_plan=on_plan,
            on_progress=on_progress,
            on_note=self.note,
            **self.settings.drawing,
        )
        found: list[Report | None] = [None]

        def evaluate_once() -> None:
            path = self.folder / "reports" / folder.parent.name / f"{folder.name}.json"
            if path.exists():
                report = load_report(path)
                if report.images["manifest"] == read_manifest(folder):
                    found[0] = report
                    return
            report = evaluate(
                folder,
                metrics=metrics,
                command=self.command,
                on_progress=self.progress,
                **self.settings.judging,
            )
            report.save(path)
            found[0] = report

        in_first_process(self.state, evaluate_once)
        broadcast_object_list(found)
        assert found[0] is not None
        return found[0]

    def note(self, text: str) -> None:
        """Tells something, in the first process."""
        if self.state.is_main_process and self.on_note is not None:
            self.on_note(text)

    def progress(self, what: str, done: float, total: float) -> None:
        """Tells how far a part of the work is, in the first process."""
        if self.state.is_main_process and self.on_progress is not None:
            self.on_progress(what, done, total)


def describe(error: Exception) -> str:
    """An error for a table; of those that are no message for people, the type as well."""
    return str(error) if isinstance(error, HDZooError) else f"{type(error).__name__}: {error}"
