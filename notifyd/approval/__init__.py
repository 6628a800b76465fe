"""The state machines of approvals and holds: pure functions from a stored state and an input to a new state.

In: an event, a ballot or the time. Out: the next state with its effects, and what a receipt says of an end. No
clock or database is read here.
"""
