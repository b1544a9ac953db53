"""Auxiliary tasks that a term of an arm adds: they need no label, and only help training."""

from kinfolk.auxiliary.reconstruction import Reconstruction as Reconstruction
