"""One module per table or figure of the paper; each runs as `python -m pplkit.experiments.NAME --help`."""
