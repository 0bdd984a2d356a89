//! A change of a table: one key's value before and after it.

use serde::{Deserialize, Serialize};

/// The value of a key before a change of its table, and after it. `None` is a key without a value: a change to `new: None` is its
/// deletion. Made by [`Table::changes_with_old`](crate::runtime::Table::changes_with_old).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change<V> {
    /// The value before.
    pub old: Option<V>,
    /// The value after.
    pub new: Option<V>,
}
