"""Pictures and pages of results. Matplotlib is loaded only when a picture is drawn."""
