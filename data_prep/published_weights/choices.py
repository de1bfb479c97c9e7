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
# What becomes of a class head.
HEADS = ("keep", "reinit", "error")
