"""Sharing: how tasks share a trunk."""

from kinfolk.sharing.adapters import Adapters as Adapters
from kinfolk.sharing.branching import Branching as Branching
from kinfolk.sharing.cascade import Cascade as Cascade
from kinfolk.sharing.conditioned import Conditioned as Conditioned
from kinfolk.sharing.covariance_alignment import CovarianceAlignment as CovarianceAlignment
from kinfolk.sharing.description import describe as describe
from kinfolk.sharing.dselect_k import DSelectK as DSelectK
from kinfolk.sharing.hard import Hard as Hard
from kinfolk.sharing.independent import Independent as Independent
from kinfolk.sharing.learned_branching import LearnedBranching as LearnedBranching
from kinfolk.sharing.mmoe import Mmoe as Mmoe
from kinfolk.sharing.mtan import Mtan as Mtan
from kinfolk.sharing.ple import Ple as Ple
