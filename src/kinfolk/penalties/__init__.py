"""Penalties: regularisers over tasks. None yet: they come with the architectures that need them."""

from kinfolk.penalties.gate_entropy import GateEntropy as GateEntropy
from kinfolk.penalties.tensor_normal import TensorNormal as TensorNormal
