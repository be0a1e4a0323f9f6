"""Checkpoints of other formats: into ours, out of ours, and what they hold.

formats   which format a path is of
source    an opened checkpoint of another format
stacked   how a parameter lies in the tensors of another format
gin_of_source   the gin files and bindings that describe its model
to_run    writes a run's folder from such tensors
inspect   what a checkpoint of any format is, by its headers

A package for each format: `hugging_face`, and `t5x`, which is read only.
"""
