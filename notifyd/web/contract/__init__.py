"""The published contract: an OpenAPI 3.1 document, and models in Go and C#, made of the records themselves.

Nothing of it is imported before it is asked for, see `notifyd.web.ops`.
"""
