"""`make contract`: the published contract, made of the records that read the requests, the routes and the faults.

The files it writes are committed: the daemon serves them and `notifyd contract` prints them. Tests hold them to
what is made now, and the service to what they say.
"""
