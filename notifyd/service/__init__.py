"""The process: the composition root that joins the steps, signals, logs, the watchdog, systemd.

In: a configuration file and signals. Out: a running daemon, and its exit code.
"""
