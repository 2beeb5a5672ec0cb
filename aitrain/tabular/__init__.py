"""Tables: rows of named values in, an estimator that predicts from such rows out. Nothing here imports torch.

`prepare` makes rows to numbers, `fit` searches, cross-validates, fits and scores, `save` and `load` keep what came out.
"""
