"""Figures of the report, a module a topic.

Nothing is imported here: a script that imports the module it needs runs again for no other figure.
"""
