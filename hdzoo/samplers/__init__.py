r"""The samplers: Langevin-type Markov chains on a score, as diffusers schedulers.

Notation, the same in every file here:

* data :math:`x_0 \sim p` on :math:`R^d`; noisy data :math:`x = x_0 + \sigma z`,
  :math:`z \sim N(0, I)` (variance-exploding coordinates); its law is :math:`p_\sigma`;
* score :math:`s(x, \sigma) = \nabla \log p_\sigma(x)`;
* ladder :math:`\sigma_1 > \dots > \sigma_L`, and :math:`\sigma_{L+1} = 0`;
* the state that a pipeline carries is :math:`x`, or :math:`x / \sqrt{1 + \sigma^2}` for a
  variance-preserving network (`hdzoo.samplers.coordinates`);
* step size :math:`\alpha` in the Langevin step :math:`x + \alpha s + \sqrt{2 \alpha} z`, and
  :math:`\eta = \alpha / \sigma^2`, the same without units.

Every sampler is a choice on four axes (`hdzoo.samplers.base`): the walk on a rung, the ladder, the
hand-off from one rung to the next, and the read-out of a sample from the last noisy state.
"""
