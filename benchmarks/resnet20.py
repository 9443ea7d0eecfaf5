"""A classifier of CIFAR-10 that metrics can look through: ResNet-20, as its published weights have it."""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters: He et al. 2016, section 3.3, option A."""

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride, self.new = stride, channels_out - channels_in

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        half = self.new // 2
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new - half))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, n = 3: normalised images (N, 3, 32, 32) → features (N, 64) and logits (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return features, self.linear(features)
