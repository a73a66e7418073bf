"""The measurements of docs/performance.md: ratios, both sides in one run."""
