"""Reports: what ranges and plans look like in a terminal, as plain text and in a notebook.

`rows` makes the one intermediate form, without drawing; `order` and `tree` arrange it; `tables`
and `html` draw it; `console` has what users call.
"""
