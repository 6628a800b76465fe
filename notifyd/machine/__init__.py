"""The approval machine and the hold machine: pure functions from a stored state and an input to a new state.

Nothing here reads a clock, a database or a key. `rounds` and `holds` take events that arrive, `ballots` takes
decisions and the timer, `notices` makes what notifyd itself has to say, `advance` what all of them share.
"""
