"""Pages that stand in the report: HTML that needs no other file.

Nothing is imported here: a script that imports the module it needs runs again for no other page.
"""
