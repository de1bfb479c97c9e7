"""What an exported folder is made of; needs nothing to be imported."""

FORMATS = ("jax", "saved_model")
# Each platform gets the formulation of convolutions that suits it.
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
# A batch of any number of clips.
DYNAMIC = "dynamic"
CARD, MODEL, ARRAYS = "card.json", "model.jax_export", "weights.npz"
SAVED_MODEL = "saved_model"
