"""From the checkpoints of the NCSN papers' authors to pipeline folders.

`hdzoo.conversion.convert.convert` is the way in. A checkpoint is a pickle, opened for the tensors
in it and nothing else; the network follows from the names and shapes of the weights, and what does
not follow from them comes from the authors' ``config.yml`` or from the paper's settings for a data
set.
"""
