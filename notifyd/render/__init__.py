"""Templates and locales: texts for readers, made in a sandbox, as a function of their input.

In: an event, a template's name, a locale and a zone. Out: a `Message`, the same each time.
"""
