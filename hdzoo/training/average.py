"""The moving average of a network's weights, by diffusers' rule or the authors' own."""

from collections.abc import Iterable

import torch
from diffusers.training_utils import EMAModel

EMA_RULES = ("warmup", "score-sde", "constant")


class Average(EMAModel):
    r"""diffusers' average of weights, which forgets by a factor that may grow with the steps.

    The average ``a`` of weights ``w`` becomes :math:`d_n a + (1 - d_n) w` after step n = 1, 2...

    ==============  ================================  ==============================================
    rule            :math:`d_n`, at most ``decay``    source
    ==============  ================================  ==============================================
    ``warmup``      :math:`1 - n^{-3/4}`              diffusers' with ``use_ema_warmup``
    ``score-sde``   :math:`(1 + n) / (10 + n)`        Song et al. (arXiv 2011.13456), the code
    ``constant``    ``decay``                         Song and Ermon (2006.09011), technique 5
    ==============  ================================  ==============================================

    Args:
        parameters: the weights, from which the average starts.
        decay: the largest factor.
        rule: one of `EMA_RULES`.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float, rule: str) -> None:
        # All weights at once: one by one costs an accelerator more than it computes.
        options = {"use_ema_warmup": True, "inv_gamma": 1.0, "power": 0.75, "foreach": True}
        super().__init__(parameters, decay=decay, **options)
        self.rule = rule

    def get_decay(self, optimization_step: int) -> float:
        if self.rule == "score-sde":
            return min(self.decay, (1 + optimization_step) / (10 + optimization_step))
        if self.rule == "constant":
            return self.decay
        return super().get_decay(optimization_step)
