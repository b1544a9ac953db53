"""Balancing: from task losses to one update."""

from typing import TYPE_CHECKING, Any

from kinfolk.balancing.base import Losses as Losses
from kinfolk.balancing.cagrad import CAGrad as CAGrad
from kinfolk.balancing.dwa import Dwa as Dwa
from kinfolk.balancing.evolving import Evolving as Evolving
from kinfolk.balancing.excess import Excess as Excess
from kinfolk.balancing.famo import Famo as Famo
from kinfolk.balancing.fixed import Fixed as Fixed
from kinfolk.balancing.gradient_gate import GradientGate as GradientGate
from kinfolk.balancing.gradnorm import GradNorm as GradNorm
from kinfolk.balancing.jacobian import RULES
from kinfolk.balancing.nash_mtl import NashMTL as NashMTL
from kinfolk.balancing.pcgrad import PCGrad as PCGrad
from kinfolk.balancing.random_weights import RandomWeights as RandomWeights
from kinfolk.balancing.svd_reweighting import SvdReweighting as SvdReweighting
from kinfolk.balancing.task_stopping import TaskStopping as TaskStopping
from kinfolk.balancing.uncertainty import Uncertainty as Uncertainty

globals().update({rule.__name__: rule for rule in RULES.values()})  # TorchJD's, by their names there

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the same, for type checkers
