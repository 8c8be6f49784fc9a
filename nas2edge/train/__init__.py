"""Training of supernets: which sub-networks a step trains, what each learns from, and the loop around it.

>>> from nas2edge.train.loop import train
"""
