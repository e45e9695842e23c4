"""Meanings of the heavy operators in NumPy: plain functions from arrays to arrays.

Nothing here knows of tensors, gradients or records; the operator files of `lampion.ops` do.
"""
