"""What the Python peers share: the command line and a record as a line of JSON. See ../README.md."""

import json
import sys


def options():
    """The command, and its options by name."""
    words = sys.argv[2:]
    return sys.argv[1], {name[2:]: value for name, value in zip(words[::2], words[1::2])}


def records(phase, count):
    """The keys and values of a phase."""
    return [(b"k%d" % index, b"%s-%d" % (phase.encode(), index)) for index in range(count)]


def compression(codec):
    return None if codec == "none" else codec


def line(topic, offset, key, value, headers):
    text = lambda field: None if field is None else field.decode()
    header = next((value for name, value in headers if name == "h"), None)
    fields = {"topic": topic, "offset": offset, "key": text(key), "value": text(value), "header": text(header)}
    return json.dumps(fields)
