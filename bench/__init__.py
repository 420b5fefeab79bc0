"""Measurements: load by the generator in bench/xload, results in bench/results. Nothing of the server imports this."""
