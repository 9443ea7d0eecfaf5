"""Image data: one data module, its resumable loader, and a doctor for image folders."""

from lit_gans.data.datamodule import ImageDataModule
from lit_gans.data.doctor import examine
from lit_gans.data.loader import ResumableLoader
from lit_gans.data.pairs import PairedImageDataModule
from lit_gans.data.unpaired import UnpairedImageDataModule

__all__ = ("ImageDataModule", "PairedImageDataModule", "ResumableLoader", "UnpairedImageDataModule", "examine")
