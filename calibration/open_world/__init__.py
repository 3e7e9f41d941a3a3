"""Code bases outside of transformers and llama.cpp: what their files hold, taken as facts from their sources.

``rows/*.toml`` has one row a network, ``table`` reads them and splits them in two halves, ``build`` makes files of
them. Only the *seen* half may be looked at by who writes rules; the other half is scored and never read.
"""
