"""The data sets by name, readable without importing anything."""

DATASETS: dict[str, str] = {
    "digits": "1,797 digits of 8×8, grey, 10 classes; embedded, needs no files",
    "mnist": "70,000 digits of 28×28, grey, 10 classes",
    "fashion_mnist": "70,000 pieces of clothing of 28×28, grey, 10 classes",
    "cifar10": "60,000 photographs of 32×32, RGB, 10 classes",
    "cifar100": "60,000 photographs of 32×32, RGB, 100 classes",
    "celeba": "202,599 aligned faces, RGB, cropped to 178 and resized to 64",
    "folder": "your own images: a folder or .zip, class sub-folders give labels",
    "fake": "noise of any shape, for trials",
    "ring": "60,000 points around 8 centres on a circle; drawn, needs no files",
    "grid": "60,000 points around 25 centres on a square grid; drawn, needs no files",
    "spiral": "60,000 points around 20 centres along a spiral; drawn, needs no files",
    "stacked_mnist": "154,000 images of 28×28, RGB, a digit in each channel: 1,000 classes",
}
