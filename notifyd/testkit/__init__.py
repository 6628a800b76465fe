"""The parts behind `notifyd.testing`. Import them from there.

In: a plugin under test. Out: test classes to inherit, sinks to send to, and what went wrong by name.
"""
