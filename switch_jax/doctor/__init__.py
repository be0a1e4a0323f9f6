"""Checks of a machine: what is here, whether it computes the right thing, and how fast.

`checks` runs them one after the other, and goes on when one fails. `installed` says what is here;
`kernels`, `layers` and `steps` compare each part with a plain way of doing the same; `speed`
measures products, memory, exchanges and storage.
"""
