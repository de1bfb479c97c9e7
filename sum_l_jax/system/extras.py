"""Libraries that only some work needs, and the extras that install them."""

from __future__ import annotations

# By the name that is imported; setup.py declares the extras.
EXTRAS = {
  "apache_beam": "beam",
  "gcsfs": "gcs",
  "jinja2": "report",
  "matplotlib": "report",
  "onnx": "onnx",
  "onnxruntime": "onnx",
  "sentence_transformers": "data-prep",
  "sklearn": "benchmarks",
  "starlette": "serve",
  "tensorboard": "tensorboard",
  "tensorflow": "tensorboard",
  "tensorflow_text": "text",
  "torch": "data-prep",
  "uvicorn": "serve",
  "wandb": "wandb",
}


def advice(error: ImportError) -> str:
  """Says which extra brings a library that is missing.

  Returns:
    "matplotlib is not installed: pip install 'sum_l_jax[report]'", or "" where
    the error is about something else.
  """
  library = (error.name or "").partition(".")[0]
  if library not in EXTRAS:
    return ""
  return f"{library} is not installed: pip install 'sum_l_jax[{EXTRAS[library]}]'"
