"""Losses of SUM-L, as functions of arrays.

`sum_l.py` has the paper's equations, `variants.py` and `many_positives.py` what stands
beside them, `classification.py` the label losses. An `Objective` adds them up as Eq. 12.
"""

from __future__ import annotations

from sum_l_jax.losses.classification import sigmoid_cross_entropy
from sum_l_jax.losses.classification import softmax_cross_entropy
from sum_l_jax.losses.many_positives import Items
from sum_l_jax.losses.many_positives import Matching
from sum_l_jax.losses.many_positives import matching_loss
from sum_l_jax.losses.negatives import Contrast
from sum_l_jax.losses.objective import Objective
from sum_l_jax.losses.own_terms import register_term
from sum_l_jax.losses.sum_l import both_directions
from sum_l_jax.losses.sum_l import decoupled_contrastive
from sum_l_jax.losses.sum_l import filtered_alignment
from sum_l_jax.losses.sum_l import info_nce
from sum_l_jax.losses.sum_l import pair_similarity
from sum_l_jax.losses.sum_l import select_pairs
from sum_l_jax.losses.sum_l import similarity_weights
from sum_l_jax.losses.sum_l import total
from sum_l_jax.losses.sum_l import video_text
from sum_l_jax.losses.sum_l import weighted_alignment
from sum_l_jax.losses.variants import graded_alignment
from sum_l_jax.losses.variants import graded_contrastive
from sum_l_jax.losses.variants import triplet
from sum_l_jax.losses.variants import triplet_alignment

__all__ = [
  "Contrast",
  "Items",
  "Matching",
  "Objective",
  "both_directions",
  "decoupled_contrastive",
  "filtered_alignment",
  "graded_alignment",
  "graded_contrastive",
  "info_nce",
  "matching_loss",
  "pair_similarity",
  "register_term",
  "select_pairs",
  "sigmoid_cross_entropy",
  "similarity_weights",
  "softmax_cross_entropy",
  "total",
  "triplet",
  "triplet_alignment",
  "video_text",
  "weighted_alignment",
]
