"""What comes in over the wire: JSON read within bounds, events and acknowledgements as frozen records.

In: bytes and headers of a request. Out: a record, or every fault at once with its JSON pointer.
"""
