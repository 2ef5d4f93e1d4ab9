"""Graft: a folder of labelled images in, a transfer-learned classifier and an honest comparison out.

Read it from params.py (what can be set) over artifacts.py (what crosses stages) to stages/ (one entry point per verb of
dvc.yaml); everything between is library code that knows neither files' names nor parameters' values.
"""
