"""The embedded default: a trained tiny supernet and its images. Data only."""
