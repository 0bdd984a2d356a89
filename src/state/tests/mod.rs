//! Tests of the stores against a model, and of what the failure catalogue asks.

mod catalogue;
mod damage;
mod meta;
mod model;
mod sizes;
mod support;
mod views;
