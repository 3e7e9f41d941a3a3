"""Conformance: is the label right for every known architecture, from its header alone?"""
