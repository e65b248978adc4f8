"""Prepared data sets: folders of memory-mapped arrays that open without reading the examples."""
