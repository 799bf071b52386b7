"""Model files: fetch them, check them, quantize them, say what is in them.

Nothing here loads a model, and nothing here imports llama.cpp: quantizing runs in a process of its own.
"""
