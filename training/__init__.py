"""Fitting a captioner and measuring it. Imports model, never service."""
