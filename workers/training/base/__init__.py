"""What every room of the engine may use: types, errors, randomness, processes, KL estimates, the recorder
protocol.
"""
