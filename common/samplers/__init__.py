"""Samplers: functions of a noise predictor and a schedule, one algorithm a file.

A noise predictor is a callable ``model(x_t, timesteps)`` with x_t of shape (B, C, *spatial) and training timesteps of
shape (B,); it returns epsilon of x_t's shape, or with twice its channels epsilon and the variance's interpolation v.
Images are in [-1, 1]; 2-D and 3-D run through the same code.
"""
