//! Calendar windows: days, weeks, months and years as a zone's clocks show them.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, ToSpan};

use super::fixed::{Grid, on_grid};
use super::fold::WindowFold;
use super::{Emission, Windows};
use crate::codec::Datum;
use crate::runtime::{JobError, Keyed, SideOutput, Upstream, Window, Windowed};
use crate::types::Timestamp;

/// Windows that follow the calendar of a zone: a day has 23 or 25 hours where its clocks are changed.
///
/// The rules of zones come with the crate, so results do not depend on the machine's zone, nor on the rules that it has.
///
/// ```
/// use onceflow::prelude::*;
/// use onceflow::testing::TestBed;
/// use onceflow::types::Timestamp;
///
/// let job = Job::new("clicks-per-day");
/// job.source(topic::<str>("clicks"))
///     .key_by_ref(|user: &str| user)
///     .window(CalendarWindows::days("Europe/Berlin")?)
///     .count("per-day")
///     .sink(topic("clicks-per-day"));
///
/// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("clicks", 1).start();
/// let noon = Timestamp(1_767_182_400_000);
/// bed.send_value_at("clicks", "ann", noon);
/// bed.send_value_at("clicks", "ann", noon.plus_millis(10 * 3_600_000));
/// // Eleven at night in London is midnight in Berlin: another day.
/// bed.send_value_at("clicks", "ann", noon.plus_millis(11 * 3_600_000));
/// let days = bed.take::<Windowed<str>, u64>("clicks-per-day");
/// assert_eq!(days[0].value, Some(2));
/// # Ok::<(), JobError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CalendarWindows {
    zone: TimeZone,
    period: Period,
    grace: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Day,
    /// From Monday on.
    Week,
    Month,
    Year,
}

impl Period {
    fn span(self) -> Span {
        match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
            Self::Year => 1.year(),
        }
    }

    /// The first day of the period that a day is in.
    fn first_day(self, day: Date) -> Option<Date> {
        match self {
            Self::Day => Some(day),
            Self::Week => {
                let since_monday = i64::from(day.weekday().to_monday_zero_offset());
                day.checked_sub(since_monday.days()).ok()
            }
            Self::Month => Some(day.first_of_month()),
            Self::Year => Some(day.first_of_year()),
        }
    }
}

impl CalendarWindows {
    /// Days of the zone called `zone` in the IANA database, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// If there is no such zone.
    pub fn days(zone: &str) -> Result<Self, JobError> {
        Self::new(zone, Period::Day)
    }

    /// Weeks, which begin on Monday.
    ///
    /// # Errors
    /// As [`days`](Self::days).
    pub fn weeks(zone: &str) -> Result<Self, JobError> {
        Self::new(zone, Period::Week)
    }

    /// Months.
    ///
    /// # Errors
    /// As [`days`](Self::days).
    pub fn months(zone: &str) -> Result<Self, JobError> {
        Self::new(zone, Period::Month)
    }

    /// Years.
    ///
    /// # Errors
    /// As [`days`](Self::days).
    pub fn years(zone: &str) -> Result<Self, JobError> {
        Self::new(zone, Period::Year)
    }

    fn new(zone: &str, period: Period) -> Result<Self, JobError> {
        let found = TimeZoneDatabase::bundled().get(zone);
        let zone = found.map_err(|e| JobError::Topology {
            job: "with calendar windows".to_owned(),
            why: format!("there is no zone {zone:?} ({e}): name one of the IANA database, such as \"Europe/Berlin\""),
        })?;
        Ok(Self {
            zone,
            period,
            grace: 0,
        })
    }

    /// Keeps a window open for records that are late by up to `grace`. The default is none.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self {
            grace: i64::try_from(grace.as_millis()).unwrap_or(i64::MAX),
            ..self
        }
    }

    /// The first time of a day.
    fn begin(&self, day: Date) -> Option<Timestamp> {
        let begin = day.to_zoned_datetime(self.zone.clone()).ok()?;
        Some(Timestamp(begin.timestamp().as_millisecond()))
    }
}

impl Grid for CalendarWindows {
    fn slice_of(&self, time: Timestamp) -> Option<Window> {
        let time = jiff::Timestamp::from_millisecond(time.0).ok()?;
        let day = time.to_zoned_datetime(self.zone.clone()).date();
        let first = self.period.first_day(day)?;
        let next = first.checked_add(self.period.span()).ok()?;
        Some(Window {
            start: self.begin(first)?,
            end: self.begin(next)?,
        })
    }

    fn has_gaps(&self) -> bool {
        false
    }

    fn next_start(&self, _time: Timestamp) -> Option<Timestamp> {
        None
    }

    fn slice_ending(&self, end: Timestamp) -> Window {
        let before = self.slice_of(end.plus_millis(-1));
        before.unwrap_or(Window { start: end, end })
    }

    fn windows_of(&self, slice: Window) -> impl Iterator<Item = Window> {
        std::iter::once(slice)
    }

    fn slices_of(&self, window: Window) -> impl Iterator<Item = Timestamp> {
        std::iter::once(window.end)
    }

    fn is_tumbling(&self) -> bool {
        true
    }

    fn grace_millis(&self) -> i64 {
        self.grace
    }

    fn is_late(&self, slice: Window, watermark: Timestamp) -> bool {
        self.closes_at(slice) <= watermark
    }

    fn next_close(&self, watermark: Timestamp) -> Timestamp {
        // The window that holds the watermark less the grace is the first that is still open.
        let open = self.slice_of(watermark.plus_millis(-self.grace));
        match open {
            Some(window) => self.closes_at(window),
            None if watermark < Timestamp(0) => Timestamp::MIN,
            None => Timestamp::MAX,
        }
    }
}

impl Windows for CalendarWindows {
    type Key<K: Datum + ?Sized> = Windowed<K>;

    #[track_caller]
    fn fold<K, V, Up, C, E>(
        self,
        keyed: Keyed<K, V, Up>,
        late: Option<SideOutput<K, V>>,
        name: &str,
        fold: C,
    ) -> Keyed<Windowed<K>, E::Of<C::State>, impl Upstream<Windowed<K>, E::Of<C::State>>>
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        Up: Upstream<K, V>,
        C: WindowFold<V>,
        E: Emission,
    {
        on_grid::<_, _, _, _, _, E>(self, keyed, late, name, fold)
    }
}
