"""From one TOML file to frozen settings, with every fault found at once.

In: the file's path, the environment, the channel types that plugins bring. Out: a `Settings`, or a `ConfigError`.
"""
