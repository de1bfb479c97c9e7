"""What the command offers; needs nothing to be imported."""

# --model of the command, and ours. "8x8" counts the slow pathway's frames.
MODELS = {
  "slow_r50_8x8": "slow_r50",
  "slowfast_r50_8x8": "slowfast_r50",
  "slowfast_r50_4x16": "slowfast_r50_4x16",
  "slowfast_r101_8x8": "slowfast_r101",
  "mmaction2_slowfast_r50_8x8": "mmaction2_slowfast_r50",
  "mmaction2_slowfast_r50_4x16": "mmaction2_slowfast_r50_4x16",
  "mmaction2_slowfast_r101_8x8": "mmaction2_slowfast_r101",
}
# The vision transformers with published weights, --backbone of the command; a test
# compares them with `models.vit_spec`. Their files say which one they hold, except
# where two have the same arrays.
TRANSFORMERS = (
  *("videoprism_b", "videoprism_l", "videoprism_lvt_b", "videoprism_lvt_l"),
  *("vjepa2_l", "vjepa2_h", "vjepa2_g", "vjepa2_g_384"),
  *("vjepa21_b", "vjepa21_l", "vjepa21_g", "vjepa21_gigantic"),
  *("videomae_b", "videomae_l", "videomae_h"),
  *("avion_b", "avion_l", "lavila_b", "lavila_l"),
  *("siglip2_b", "siglip2_l", "siglip2_so400m"),
  *("dinov2_s", "dinov2_b", "dinov2_l"),
)
# By backbone, the option that says which network a file holds; "" where it says it.
OPTIONS = {
  **{backbone: f"--model={model}" for model, backbone in MODELS.items()},
  **dict.fromkeys(TRANSFORMERS, ""),
}
# What becomes of a class head.
HEADS = ("keep", "reinit", "error")
