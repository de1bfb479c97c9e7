"""Weights that others published: reading, renaming, converting, writing back.

files.py    a file -> flat name -> array, without executing anything
names.py    what each family of networks calls our arrays
convert.py  arrays -> our trees, with a report; and the way back
"""
