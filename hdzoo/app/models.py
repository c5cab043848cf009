"""The models of the page: those that are offered, and the last few loaded."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from hdzoo import plugins
from hdzoo.app.limits import MODEL_CACHE, MOST_TYPED
from hdzoo.errors import HDZooError
from hdzoo.hub.resolve import resolve_model
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.sampling import load_pipeline, sampler_for

DEFAULT_MODEL = "ncsn-mnist"


class Models:
    """What visitors may draw with.

    Args:
        given: folders and Hub ids, beside the models that are bundled or come with packages.
        any_model: whether a visitor may name any other folder or Hub id.

    Attributes:
        names: those that are offered; what was given comes first.

    Raises:
        HDZooError: one that is given is not there.
    """

    def __init__(self, given: Sequence[str] = (), any_model: bool = False) -> None:
        for name in given:
            resolve_model(name)
        self.names = list(dict.fromkeys([*given, *_bundled_first()]))
        self.any_model = any_model
        self._loaded: OrderedDict[str, HDPipeline] = OrderedDict()
        self._lock = threading.Lock()

    def pipeline(self, name: Any) -> HDPipeline:
        """A model with its own sampler; it is shared, and to be left as it is.

        Raises:
            HDZooError: it is not offered, or cannot be loaded.
        """
        self.check(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_pipeline(name)
            self._loaded.move_to_end(name)
            while len(self._loaded) > MODEL_CACHE:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def check(self, name: Any) -> None:
        """Refuses a model that is not offered, before anything is looked for."""
        if not isinstance(name, str) or not name.strip():
            raise HDZooError(f"no model is chosen; the models are {', '.join(self.names)}")
        if len(name) > MOST_TYPED:
            raise HDZooError(f"the model's name has {len(name):,} characters; choose one")
        if name not in self.names and not self.any_model:
            raise HDZooError(
                f"{name!r} is no model of this page; it has {', '.join(self.names)}. Whoever "
                "starts it offers others by `hdzoo app --model NAME`"
            )

    def load(
        self, name: Any, sampler: str | None = None, options: dict[str, Any] | None = None
    ) -> HDPipeline:
        """A pipeline of a model with a sampler of choice; the network is shared.

        Raises:
            HDZooError: the model is not offered, or something does not fit.
        """
        own = self.pipeline(name)
        pipe = HDPipeline(own.unet, sampler_for(own, sampler, options))
        pipe.starter = own.starter
        pipe.set_progress_bar_config(disable=True)
        return pipe


def _bundled_first() -> list[str]:
    """The registered models; the default one first, then the others that travel with hdzoo."""

    def key(name: str) -> tuple[bool, bool, str]:
        package = plugins.provider("pipelines", name).distribution
        return name != DEFAULT_MODEL, package != "hdzoo", name

    return sorted(plugins.names("pipelines"), key=key)
