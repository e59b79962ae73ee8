"""Export of a finished run to a model folder: calibration, ONNX files, quantisation, metrics and card."""
