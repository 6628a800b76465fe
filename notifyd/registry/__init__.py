"""Plugins found and verified; what a configuration stands for, as one immutable value that is swapped whole.

In: `Settings` and installed plugins. Out: a `Registry` of open channels, rules, templates, keys and clients.
"""
