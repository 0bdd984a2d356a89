//! The table of versions as the documentation shows it, made from the table that the code uses.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::ApiKey;

/// All APIs with the versions that the broker serves and the client speaks, as a Markdown table.
#[must_use]
pub fn version_table() -> String {
    let mut table = String::from(
        "| key | API | broker serves | client speaks | what it does |\n|---|---|---|---|---|\n",
    );
    for api in ApiKey::ALL {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} |",
            api.key(),
            api,
            range(&api.served()),
            range(&api.spoken()),
            api.description(),
        );
    }
    table
}

fn range(versions: &RangeInclusive<i16>) -> String {
    match versions.start() == versions.end() {
        true => versions.start().to_string(),
        false => format!("{}–{}", versions.start(), versions.end()),
    }
}
