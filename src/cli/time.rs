//! Timestamps as people write them: RFC 3339 in UTC, to the millisecond.

use crate::types::Timestamp;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// `2026-11-22T07:09:00.123Z`; `-` for no timestamp. Outside the years 0 to 9999 the milliseconds themselves.
pub(super) fn format(timestamp: Timestamp) -> String {
    if timestamp == Timestamp::NONE {
        return "-".to_owned();
    }
    let (year, month, day) = civil_from_days(timestamp.0.div_euclid(MILLIS_PER_DAY));
    if !(0..=9999).contains(&year) {
        return timestamp.to_string();
    }
    let millis = timestamp.0.rem_euclid(MILLIS_PER_DAY);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads `YYYY-MM-DD`, `YYYY-MM-DDTHH:MM`, with `:SS` and `.mmm` if wanted. It is UTC, with a final `Z` or without, unless
/// a time ends in its distance from UTC (`+01:00`).
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time_in_zone(time)?),
        None => (text, 0),
    };
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let day = number(parts.next()?, 2)?;
    let days = days_from_civil(year, month, day);
    // A day that does not exist (2026-02-30) comes back as another one.
    (civil_from_days(days) == (year, month, day)).then_some(Timestamp(days * MILLIS_PER_DAY + time))
}

/// Milliseconds since midnight UTC of a time that may end in its distance from UTC.
fn time_in_zone(text: &str) -> Option<i64> {
    let Some(at) = text.find(['+', '-']) else {
        return time_of_day(text);
    };
    let (time, zone) = text.split_at(at);
    let distance = time_of_day(&zone[1..]).filter(|_| zone.len() == "+01:00".len())?;
    match zone.starts_with('+') {
        true => Some(time_of_day(time)? - distance),
        false => Some(time_of_day(time)? + distance),
    }
}

/// Milliseconds since midnight.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "000"));
    let mut parts = clock.splitn(3, ':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let second = number(parts.next().unwrap_or("00"), 2)?;
    let millis = number(fraction, 3)?;
    let is_valid = hour < 24 && minute < 60 && second < 60;
    is_valid.then_some(((hour * 60 + minute) * 60 + second) * 1000 + millis)
}

/// A number of exactly `digits` decimal digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    is_valid.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. The year is taken to begin in March, so that the leap
/// day is its last: then the days before a month are a linear function of it.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = match month > 2 {
        true => (year, month - 3),
        false => (year - 1, month + 9),
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 146,097 days are 400 years; 719,468 lie between 0000-03-01 and 1970-01-01.
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day counted from 1970-01-01.
pub(super) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    match month < 10 {
        true => (year, month + 3, day),
        false => (year + 1, month - 9, day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_print_and_parse() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
            (-86_400_000, "1969-12-31T00:00:00.000Z"),
        ] {
            assert_eq!(format(Timestamp(millis)), text);
            assert_eq!(parse(text), Some(Timestamp(millis)));
        }
        assert_eq!(format(Timestamp::NONE), "-");
    }

    #[test]
    fn every_day_of_eight_hundred_years_comes_back() {
        for day in -150_000..150_000 {
            let (year, month, of_month) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, of_month), day);
        }
    }

    #[test]
    fn short_forms_are_read_and_nonsense_is_not() {
        assert_eq!(
            parse("2024-02-29"),
            Some(Timestamp(19_782 * MILLIS_PER_DAY))
        );
        assert_eq!(parse("1970-01-01 00:01"), Some(Timestamp(60_000)));
        assert_eq!(parse("1970-01-01T00:01:02"), Some(Timestamp(62_000)));
        for text in ["1970-01-01T01:02+01:00", "1969-12-31T19:02-05:00"] {
            assert_eq!(parse(text), Some(Timestamp(120_000)), "{text}");
        }
        for text in [
            "",
            "1970-01-01T01:02+1",
            "1970-01-01T01:02+25:00",
            "1970-01-01T01:02+01:00:00",
            "1970-01-01+01:00",
            "2023-02-29",
            "2024-13-01",
            "2024-1-1",
            "2024-01-01T25:00",
            "tea",
            "9999999999",
        ] {
            assert_eq!(parse(text), None, "{text:?} was read");
        }
    }

    #[test]
    fn years_that_do_not_fit_four_digits_print_as_milliseconds() {
        assert_eq!(format(Timestamp(i64::MAX)), i64::MAX.to_string());
        assert_eq!(format(Timestamp(i64::MIN)), i64::MIN.to_string());
    }
}
