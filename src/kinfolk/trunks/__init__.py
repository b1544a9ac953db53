"""Trunks: ordered lists of stages."""

from kinfolk.trunks.from_modules import FromModules as FromModules
from kinfolk.trunks.mlp import Mlp as Mlp
