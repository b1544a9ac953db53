"""Sharing: how tasks share a trunk."""

from kinfolk.sharing.hard import Hard as Hard
from kinfolk.sharing.independent import Independent as Independent
