"""Penalties: regularisers over tasks."""

from kinfolk.penalties.deep_amtfl import DeepAmtfl as DeepAmtfl
from kinfolk.penalties.deep_amtl import DeepAmtl as DeepAmtl
from kinfolk.penalties.gate_entropy import GateEntropy as GateEntropy
from kinfolk.penalties.orthogonality import Orthogonality as Orthogonality
from kinfolk.penalties.soft_sharing import SoftSharing as SoftSharing
from kinfolk.penalties.tensor_normal import TensorNormal as TensorNormal
