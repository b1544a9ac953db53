"""Penalties: regularisers over tasks. None yet: they come with the architectures that need them."""
