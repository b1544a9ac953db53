"""Published experiments as commands; one export line per study."""

from kinfolk.studies.amtfl_deep import AmtflDeep as AmtflDeep
from kinfolk.studies.amtfl_shallow import AmtflShallow as AmtflShallow
from kinfolk.studies.auxiliary_tasks import AuxiliaryTasks as AuxiliaryTasks
from kinfolk.studies.cross_stitch_split import CrossStitchSplit as CrossStitchSplit
from kinfolk.studies.evolving_structured import EvolvingStructured as EvolvingStructured
from kinfolk.studies.evolving_weights import EvolvingWeights as EvolvingWeights
from kinfolk.studies.gradnorm_toy import GradnormToy as GradnormToy
from kinfolk.studies.mechanisms import Mechanisms as Mechanisms
from kinfolk.studies.negative_transfer import NegativeTransfer as NegativeTransfer
from kinfolk.studies.uncertainty import UncertaintyWeights as UncertaintyWeights
