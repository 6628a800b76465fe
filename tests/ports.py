"""The ports of the kit, whose rooms the tests of plugins do not enter."""

from notifyd.testkit.ports import free_port

__all__ = ["free_port"]
