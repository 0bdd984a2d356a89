//! Kafka's primitive types in journal records: big-endian numbers, strings, compact arrays, tagged fields.
