from .conv_energy import ConvEnergyModel as ConvEnergyModel
from .energy import EnergyModel as EnergyModel
from .ncsn import NCSNModel as NCSNModel
from .ncsn_unet import NCSNUNetModel as NCSNUNetModel
from .ncsnpp import NCSNppModel as NCSNppModel
from .ncsnv2 import NCSNv2Model as NCSNv2Model
from .unet import UNetScoreModel as UNetScoreModel
from .wrapped import wrap as wrap
