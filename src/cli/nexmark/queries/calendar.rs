//! Days, hours and minutes of times, in UTC.

const MILLIS_PER_MINUTE: i64 = 60_000;
const MILLIS_PER_HOUR: i64 = 60 * MILLIS_PER_MINUTE;
const MILLIS_PER_DAY: i64 = 24 * MILLIS_PER_HOUR;

/// The day of a time, counted from 1970-01-01.
pub(super) fn day(time: i64) -> i64 {
    time.div_euclid(MILLIS_PER_DAY)
}

/// The hour of the day, from 0 to 23.
pub(super) fn hour(time: i64) -> i64 {
    time.rem_euclid(MILLIS_PER_DAY) / MILLIS_PER_HOUR
}

/// The minute of the day, from 0 to 1439.
pub(super) fn minute(time: i64) -> i64 {
    time.rem_euclid(MILLIS_PER_DAY) / MILLIS_PER_MINUTE
}

/// A day as `yyyy-MM-dd`.
pub(super) fn day_name(day: i64) -> String {
    let (year, month, day) = crate::cli::time::civil_from_days(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A minute of the day as `HH:mm`.
pub(super) fn minute_name(minute: i64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}
