//! Tests of the stores against a model, and of what the failure catalogue asks.
