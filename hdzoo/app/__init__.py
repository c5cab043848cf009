"""The page: samplers to play with in a browser (`hdzoo app`).

What a tab does is in a module of this room that knows no Gradio; what it looks like is in ``tabs``.
"""
