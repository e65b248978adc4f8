"""Experiments: from a configuration file to a run and its folder.

Importing this package imports none of its modules: users of ``fs.simulate`` need no configuration.
"""
