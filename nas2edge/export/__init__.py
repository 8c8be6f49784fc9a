"""Export with proof: a sub-network as a bundle of files, checked stage by stage against the network that was searched.

>>> from nas2edge.export.pipeline import ExportRequest, export
"""
