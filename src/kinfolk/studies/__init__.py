"""Published experiments as commands; one export line per study."""

from kinfolk.studies.evolving_weights import EvolvingWeights as EvolvingWeights
