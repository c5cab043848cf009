from . import distances as distances
from . import targets as targets
from . import verification as verification
from .errors import HDZooError as HDZooError
from .generators import GreatCircle as GreatCircle
from .models import ConvEnergyModel as ConvEnergyModel
from .models import EnergyModel as EnergyModel
from .models import NCSNModel as NCSNModel
from .models import NCSNppModel as NCSNppModel
from .models import NCSNUNetModel as NCSNUNetModel
from .models import NCSNv2Model as NCSNv2Model
from .models import UNetScoreModel as UNetScoreModel
from .models import autoguide as autoguide
from .models import to_onnxruntime as to_onnxruntime
from .models import wrap as wrap
from .pipelines.generators import interpolated_generators as interpolated_generators
from .pipelines.generators import sample_generators as sample_generators
from .pipelines.inpainting import HDInpaintPipeline as HDInpaintPipeline
from .pipelines.pipeline import HDPipeline as HDPipeline
from .plugins import get_sampler as get_sampler
from .plugins import hookimpl as hookimpl
from .plugins import list_samplers as list_samplers
from .samplers.averaged_noise import (
    AveragedNoiseAnnealedLangevinSampler as AveragedNoiseAnnealedLangevinSampler,
)
from .samplers.averaged_noise import (
    AveragedNoiseLangevinSampler as AveragedNoiseLangevinSampler,
)
from .samplers.consistent import ConsistentAnnealedSampler as ConsistentAnnealedSampler
from .samplers.dpm_solver import DPMSolverPP2MSampler as DPMSolverPP2MSampler
from .samplers.half_denoising import AlphaHalfDenoisingSampler as AlphaHalfDenoisingSampler
from .samplers.half_denoising import AnnealedHalfDenoisingSampler as AnnealedHalfDenoisingSampler
from .samplers.half_denoising import HalfDenoisingSampler as HalfDenoisingSampler
from .samplers.half_denoising import NoiseCorrectedLangevinSampler as NoiseCorrectedLangevinSampler
from .samplers.heun import HeunSampler as HeunSampler
from .samplers.langevin import AnnealedLangevinSampler as AnnealedLangevinSampler
from .samplers.langevin import LangevinSampler as LangevinSampler
from .samplers.metropolis import MALASampler as MALASampler
from .samplers.predictor_corrector import (
    PredictorCorrectorSampler as PredictorCorrectorSampler,
)
from .samplers.presets import get_preset as get_preset
from .samplers.underdamped import (
    UnderdampedAnnealedLangevinSampler as UnderdampedAnnealedLangevinSampler,
)
from .samplers.underdamped import UnderdampedLangevinSampler as UnderdampedLangevinSampler
from .samplers.unipc import UniPCSampler as UniPCSampler
from .scores.posterior import PosteriorCovariance as PosteriorCovariance
from .targets import EmpiricalScore as EmpiricalScore
from .targets import GaussianMixtureScore as GaussianMixtureScore
from .targets import LaplaceScore as LaplaceScore
from .targets import SegmentScore as SegmentScore
from .targets import SphereScore as SphereScore
from .version import __version__ as __version__
