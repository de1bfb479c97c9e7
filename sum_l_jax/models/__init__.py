"""Video encoders with class heads and a projection, for one view or two."""

from sum_l_jax.models.backbones import BACKBONES
from sum_l_jax.models.backbones import Backbone
from sum_l_jax.models.backbones import register_backbone
from sum_l_jax.models.backbones import register_vit
from sum_l_jax.models.encoder import EncoderOptions
from sum_l_jax.models.encoder import Encoding
from sum_l_jax.models.layer_order import LayerOrder
from sum_l_jax.models.multiview import MultiviewModel
from sum_l_jax.models.multiview import count_parameters
from sum_l_jax.models.multiview import make_model
from sum_l_jax.models.pixel_format import PixelSpec
from sum_l_jax.models.probes import ProbeOptions
from sum_l_jax.models.vit_spec import VitSpec

__all__ = (
  "BACKBONES",
  "Backbone",
  "EncoderOptions",
  "Encoding",
  "LayerOrder",
  "MultiviewModel",
  "PixelSpec",
  "ProbeOptions",
  "VitSpec",
  "count_parameters",
  "make_model",
  "register_backbone",
  "register_vit",
)
