# The public names, and the rooms they come from: the one table that lit_gans/__init__.py and type checkers read.
from lit_gans.callbacks import GenerativeMetrics as GenerativeMetrics
from lit_gans.callbacks import ReplicaCheck as ReplicaCheck
from lit_gans.callbacks import SampleGrid as SampleGrid
from lit_gans.callbacks import StopOnPlateau as StopOnPlateau
from lit_gans.data import ImageDataModule as ImageDataModule
from lit_gans.data import PairedImageDataModule as PairedImageDataModule
from lit_gans.data import UnpairedImageDataModule as UnpairedImageDataModule
from lit_gans.functional import Batch as Batch
from lit_gans.guard import *
from lit_gans.metrics import PSNR as PSNR
from lit_gans.metrics import SSIM as SSIM
from lit_gans.metrics import ClassStatistics as ClassStatistics
from lit_gans.metrics import FrechetDistance as FrechetDistance
from lit_gans.metrics import InceptionScore as InceptionScore
from lit_gans.metrics import KernelDistance as KernelDistance
from lit_gans.metrics import PrecisionRecall as PrecisionRecall
from lit_gans.models import *
from lit_gans.models import Translation as Translation
from lit_gans.models import load as load
from lit_gans.strategies import GANDDPStrategy as GANDDPStrategy
from lit_gans.version import __version__ as __version__
