//! Bytes of strangers.
