"""Prepared data sets: folders of columns that open without being read."""
