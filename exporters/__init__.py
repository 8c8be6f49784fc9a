"""Export targets, one final class each, installed as nas2edge.exporters."""
