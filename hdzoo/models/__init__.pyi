from .ncsn import NCSNModel as NCSNModel
from .ncsnpp import NCSNppModel as NCSNppModel
from .ncsnv2 import NCSNv2Model as NCSNv2Model
from .unet import UNetScoreModel as UNetScoreModel
