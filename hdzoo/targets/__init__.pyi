from . import named as named
from .analytic import AnalyticScore as AnalyticScore
from .empirical import EmpiricalScore as EmpiricalScore
from .laplace import LaplaceScore as LaplaceScore
from .manifold import SegmentScore as SegmentScore
from .manifold import SphereScore as SphereScore
from .mixture import GaussianMixtureScore as GaussianMixtureScore
