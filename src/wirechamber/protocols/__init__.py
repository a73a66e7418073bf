"""Wire formats, sans-IO. Imports nothing of ours."""
