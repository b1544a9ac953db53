"""Trunks: ordered lists of stages."""

from kinfolk.trunks.from_modules import FromModules as FromModules
from kinfolk.trunks.lenet import LeNet as LeNet
from kinfolk.trunks.mlp import Mlp as Mlp
from kinfolk.trunks.resnet import ResNet as ResNet
