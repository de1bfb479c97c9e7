"""Prediction of labels of videos: reading, windows, scores, best classes."""
