"""The state machines of approvals and holds: pure functions from a stored state and an input to a new state.

In: an event, a ballot or the time. Out: the next state with its effects. No clock, database or key is read here.
"""
