//! Golden bytes, and the rules that a foreign codec would not check.
