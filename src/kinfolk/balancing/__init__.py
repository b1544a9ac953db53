"""Balancing: from task losses to one update."""

from kinfolk.balancing.base import Losses as Losses
from kinfolk.balancing.fixed import Fixed as Fixed
from kinfolk.balancing.uncertainty import Uncertainty as Uncertainty
