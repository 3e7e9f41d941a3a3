"""Logical matrices in place of packed ones: GPTQ, AWQ, FP8 and others."""
