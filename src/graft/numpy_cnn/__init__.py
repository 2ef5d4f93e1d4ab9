"""A convolutional network in plain NumPy: every layer forward and backward, as it is derived on paper."""
