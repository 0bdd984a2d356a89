//! The codec against kafka-protocol's, against golden bytes, and against strangers.

mod arbitrary;
mod hostile;
mod oracle;
mod rules;

pub(super) use arbitrary::{Arbitrary, Choices};
