"""How well a system converts: what is said, who is heard, how it sounds.

Its modules are imported by name, so that what only reads a table need not load a model: `tables`,
`quality` (of a waveform), `utterances` (a row each), `trials` (verification), `summary` (figures).
"""
