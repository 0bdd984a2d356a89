//! Record batches, Kafka's format v2: the only record format, in memory, on disk and on the wire (design D2).
