"""Users' own data: from files to records in three parts, and the cache of what is made of them.

places.py    names, globs and folders to files; prepared sets
packing.py   files to bytes, unpacked
formats.py   files to rows
parts.py     which part a row belongs to
dataset.py   rows to checked records
hub.py       data sets of the Hugging Face hub
cache.py     arrays in files, made once
"""

from nas.tasks.data.cache import CacheReader, CacheWriter, Ragged, cached
from nas.tasks.data.dataset import Dataset, open_dataset, say
from nas.tasks.data.places import cache_home, data_home, prepared_folder

__all__ = [
    "CacheReader",
    "CacheWriter",
    "Dataset",
    "Ragged",
    "cache_home",
    "cached",
    "data_home",
    "open_dataset",
    "prepared_folder",
    "say",
]
