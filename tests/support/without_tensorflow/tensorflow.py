"""Stands in the way of TensorFlow, as on a machine that does not have it.

Importing TensorFlow takes five seconds of a core. A process that tests start
and that only trains is spared them with this folder in its PYTHONPATH.
"""

raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
