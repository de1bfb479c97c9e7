"""What an exported folder is made of; needs nothing to be imported."""

FORMATS = ("jax", "saved_model", "onnx")
# Each platform of JAX gets the formulation of convolutions that suits it.
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
# A batch of any number of clips.
DYNAMIC = "dynamic"
CARD, MODEL, ARRAYS = "card.json", "model.jax_export", "weights.npz"
SAVED_MODEL = "saved_model"
ONNX = "onnx"
# onnxruntime has convolutions of three dimensions. On CPU neither these nor the
# formulations for XLA were faster for both slow_r50 and slowfast_r50; these are fewer
# operations.
ONNX_CONV = "native"
