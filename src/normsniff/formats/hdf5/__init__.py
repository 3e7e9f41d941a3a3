"""The structure of HDF5 files, read by ourselves: no library parses what a stranger wrote.

libhdf5 trusts what it reads (five changed bytes end the process, others loop or allocate gigabytes), so it is kept out
of reading. What a header needs is little: `file` finds the superblock and charges every read, `headers` lists the
messages of an object, `groups` the members of a group, `attributes` its texts, `datasets` says what a dataset is and
where its bytes lie, `chunks` finds chunks and `slabs` decodes them.

Three rules keep all of it bounded by the size of the file: a range is checked before it is read; a node of a tree is
visited once; and every byte and every item that is parsed is counted in one place (`Structure.charge`), so that
structures which overlap cannot multiply. Links to other files are never followed. Checksums are not verified.

Layout: HDF5 File Format Specification 3.0 and 4.0 (HDF Group); sections are named where they are used.
"""
