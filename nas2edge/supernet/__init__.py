"""Supernets: elastic layers, sub-networks cut from them, recalibration, evaluation, weights files.

Torch starts here; `weights_file` and `images` do without it. Import from the modules:

>>> from nas2edge.supernet.checkpoint import load_supernet
>>> from nas2edge.supernet.static import extract
"""
