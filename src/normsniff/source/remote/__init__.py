"""Files behind URLs, through fsspec: byte ranges that a plan asks for, fetched together, never a whole large file.

`paths` knows names, `source` what was fetched and what to fetch ahead, `link` asks a file system within limits and
turns its failures into `SourceError`, `http` and `s3` make fsspec's file systems check what a server answers.
Nothing here is imported for local files, and fsspec only when the first byte is asked for.
"""
