"""Hugging Face checkpoint -> one self-contained ONNX file. torch, transformers, optimum and onnx live here and nowhere else."""
