"""The frame of the pages: layout, components, preferences of the viewer, static files.

Knows nothing of what the pages are about.
"""
