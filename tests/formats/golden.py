"""Writes the golden bytes of Avro and Protobuf: what foreign implementations make of the values below.

    python3 -m venv venv && venv/bin/pip install fastavro==1.13.1 avro==1.12.2 protobuf==7.36.2 grpcio-tools==1.85.1 \
        'confluent-kafka[schemaregistry,protobuf]==2.16.1'
    venv/bin/python tests/formats/golden.py

It rewrites tests/formats/golden.json: of each case the format, the schema, what to read, and the bytes in hexadecimal digits. Two
implementations of Avro must agree before a case is written.
"""

import importlib
import io
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import avro.io
import avro.schema
import fastavro

HERE = pathlib.Path(__file__).parent

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "cents", "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID", "SENT"]}},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [
                {"name": "article", "type": "string"}, {"name": "count", "type": "int"}]}}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "weight", "type": "double"},
        {"name": "express", "type": "boolean"},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "raw", "type": "bytes"},
    ],
}

ORDERS = [
    {"id": 1, "customer": "Ada", "cents": 1999, "note": None, "state": "NEW",
     "lines": [], "labels": {}, "weight": 0.0, "express": False, "hash": b"\0\1\2\3", "raw": b""},
    {"id": -(2 ** 63), "customer": "Zoë 東京", "cents": 2 ** 63 - 1, "note": "", "state": "SENT",
     "lines": [{"article": "tea", "count": -1}, {"article": "", "count": 2 ** 31 - 1}],
     "labels": {"colour": "grün"}, "weight": -1.5e300, "express": True, "hash": b"\xff" * 4, "raw": bytes(range(256))},
]


def readable(value):
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


def avro_cases():
    parsed = fastavro.parse_schema(ORDER)
    other = avro.schema.parse(json.dumps(ORDER))
    for number, order in enumerate(ORDERS):
        ours = io.BytesIO()
        fastavro.schemaless_writer(ours, parsed, order)
        theirs = io.BytesIO()
        avro.io.DatumWriter(other).write(order, avro.io.BinaryEncoder(theirs))
        assert ours.getvalue() == theirs.getvalue(), number
        fingerprint = bytes.fromhex(fastavro.schema.fingerprint(
            fastavro.schema.to_parsing_canonical_form(ORDER), "CRC-64-AVRO"))
        yield {
            "format": "avro",
            "name": f"order {number}",
            "schema": json.dumps(ORDER),
            "fingerprint": fingerprint.hex(),
            "value": readable(order),
            "bytes": ours.getvalue().hex(),
        }


def evolution_cases():
    """A writer's schema, a reader's, and what foreign software reads: None where it refuses."""
    def record(*fields, name="R", **more):
        return {"type": "record", "name": name, "fields": list(fields), **more}

    a = {"name": "a", "type": "long"}
    b = {"name": "b", "type": "string"}
    c = {"name": "c", "type": "long", "default": 7}
    cases = [
        ("a field inserted in the middle", record(a, b), record(a, c, b), {"a": 1, "b": "x"}),
        ("a field removed in the middle", record(a, c, b), record(a, b), {"a": 1, "c": 9, "b": "x"}),
        ("fields in another order", record(a, c, b), record(b, a, c), {"a": 1, "c": 9, "b": "x"}),
        ("a field renamed", record(a, b), record(a, {"name": "z", "type": "string", "aliases": ["b"]}), {"a": 1, "b": "x"}),
        ("a record renamed", record(a, name="Old"), record(a, name="R", aliases=["Old"]), {"a": 1}),
        ("int to long", record({"name": "a", "type": "int"}), record(a), {"a": -5}),
        ("int to double", record({"name": "a", "type": "int"}), record({"name": "a", "type": "double"}), {"a": -5}),
        ("float to double", record({"name": "a", "type": "float"}), record({"name": "a", "type": "double"}), {"a": 0.5}),
        ("long to nullable long", record(a), record({"name": "a", "type": ["null", "long"]}), {"a": 3}),
        ("nullable to plain, with a value", record({"name": "a", "type": ["null", "long"]}), record(a), {"a": 3}),
        ("nullable to plain, with null", record({"name": "a", "type": ["null", "long"]}), record(a), {"a": None}),
        ("a union's branches in another order", record({"name": "a", "type": ["null", "long", "string"]}),
         record({"name": "a", "type": ["string", "long", "null"]}), {"a": "x"}),
        ("a symbol that is not there, with a default",
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}}),
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["Z", "X"], "default": "Z"}}), {"a": "Y"}),
        ("symbols in another order",
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}}),
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["Y", "X"]}}), {"a": "Y"}),
        ("a symbol that is not there",
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}}),
         record({"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["X"]}}), {"a": "Y"}),
        ("string to long", record(b), record({"name": "b", "type": "long"}), {"b": "x"}),
        ("a new field without a default", record(a), record(a, b), {"a": 1}),
        ("long to int", record(a), record({"name": "a", "type": "int"}), {"a": 1}),
        ("items of an array gain a field",
         record({"name": "a", "type": {"type": "array", "items": record(a, name="I")}}),
         record({"name": "a", "type": {"type": "array", "items": record(c, a, name="I")}}), {"a": [{"a": 1}, {"a": 2}]}),
    ]
    for name, writer, reader, value in cases:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(writer), value)
        datum = out.getvalue()

        def with_fastavro():
            return fastavro.schemaless_reader(
                io.BytesIO(datum), fastavro.parse_schema(writer), fastavro.parse_schema(reader))

        def with_avro():
            schemas = (avro.schema.parse(json.dumps(writer)), avro.schema.parse(json.dumps(reader)))
            return avro.io.DatumReader(*schemas).read(avro.io.BinaryDecoder(io.BytesIO(datum)))

        read = []
        for way in (with_fastavro, with_avro):
            try:
                read.append(way())
            except Exception as refused:  # Each has errors of its own.
                read.append(None)
        yield {
            "format": "avro evolution",
            "name": name,
            "writer": json.dumps(writer),
            "reader": json.dumps(reader),
            "fastavro": read[0],
            "avro": read[1],
            "bytes": datum.hex(),
        }


PROTO = (HERE / "shop.proto").read_text()


def protobuf_cases():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}", str(HERE / "shop.proto")],
            check=True)
        sys.path.insert(0, folder)
        shop = importlib.import_module("shop_pb2")
    orders = [
        shop.Order(id=1, customer="Ada", cents=1999),
        shop.Order(id=2 ** 63, customer="Zoë", cents=-5, lines=[
            shop.Order.Line(article="tea", count=3), shop.Order.Line()], express=True),
    ]
    for number, order in enumerate(orders):
        yield {
            "format": "protobuf",
            "name": f"order {number}",
            "bytes": order.SerializeToString(deterministic=True).hex(),
        }
    # The indexes of messages as the compiler has them: the place in the file, then in the message around it.
    def places(messages, path, outer):
        for place, message in enumerate(messages):
            name = f"{outer}.{message.name}"
            yield name, path + [place]
            yield from places(message.nested_type, path + [place], name)

    from google.protobuf import descriptor_pb2
    file = descriptor_pb2.FileDescriptorProto()
    shop.DESCRIPTOR.CopyToProto(file)
    yield {
        "format": "protobuf messages",
        "name": "shop.proto",
        "messages": {name: path for name, path in places(file.message_type, [], "shop")},
    }


def framing_cases():
    """The framing by Confluent's own client for Python."""
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

    for path in ([0], [1], [0, 0], [2, 1, 200]):
        out = io.BytesIO()
        ProtobufSerializer._encode_varints(out, path, True)
        yield {
            "format": "framing",
            "name": f"message {path}",
            "path": path,
            "bytes": (struct.pack(">bI", 0, 16909060) + out.getvalue()).hex(),
        }


cases = [*avro_cases(), *evolution_cases(), *protobuf_cases(), *framing_cases()]
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
(HERE / "golden.json").write_text(f"[\n{lines}\n]\n")
print(f"{len(cases)} cases")
