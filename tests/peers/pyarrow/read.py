"""Reads files of Parquet with Apache Arrow: of each the schema, then the rows, as JSON, a line each."""

import json
import sys

from pyarrow import parquet


def words(value):
    return value.hex() if isinstance(value, bytes) else str(value)


for path in sys.argv[1:]:
    table = parquet.ParquetFile(path).read()
    print(json.dumps([f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in table.schema]))
    for row in table.to_pylist():
        print(json.dumps(row, default=words))
