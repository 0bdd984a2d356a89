//! q10: every bid as a line of a file of its day and minute, in UTC; beside a file that is complete stands an empty one called `_SUCCESS`, once
//! the watermark has passed the minute's end: its start and the minute of delay that the SQL names.

use std::collections::HashSet;

use super::calendar::{day, day_name, minute, minute_name};
use super::files_by_minute::{FilesByMinute, Line};
use super::{DISORDER, Inputs};
use crate::runtime::{
    Came, Due, Flow, Job, Late, LateReason, Meta, Operator, Origin, Output, Record, TimedStore,
    Watermarks,
};
use crate::types::Timestamp;

const MINUTE_MILLIS: i64 = 60_000;

/// Hands lines on to the file of their minute, and says when it is complete.
struct Minutes {
    ends: TimedStore<()>,
    /// The minutes whose ends are set.
    open: HashSet<i64>,
    watermark: Timestamp,
    late: Late<i64, String>,
    due: Due,
}

impl Operator<i64, String> for Minutes {
    type OutKey = i64;
    type Out = Line;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, i64, String>,
        out: &mut impl Output<i64, Line>,
    ) -> Flow {
        let minute = record.meta.timestamp.0.div_euclid(MINUTE_MILLIS);
        let end = Timestamp((minute + 1) * MINUTE_MILLIS);
        let bound = self.watermark.max(self.ends.time(record.key));
        if end <= bound {
            return self.late.push(record, LateReason::Closed, bound);
        }
        if self.open.insert(minute) {
            self.ends.set_timer(record.key, end)?;
        }
        out.push(record.with_value(&Line::Bid(record.value.clone())))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<i64, Line>) -> Flow {
        self.watermark = watermark;
        while let Some(came) = self.ends.next_due(watermark, &mut self.due)? {
            if !matches!(came, Came::Timer) {
                continue;
            }
            let key = self.due.key::<i64>();
            self.open.remove(&*key.decode()?);
            let meta = Meta {
                timestamp: self.due.time,
                origin: Origin::TIME,
            };
            out.push(Record::new(key, &Line::Complete, meta))?;
        }
        Ok(())
    }
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .events(job)
        .event_time(|it| it.date_time(), Watermarks::out_of_order(DISORDER))
        .filter_map(super::in_bids(|bid| {
            let (auction, bidder, price, time) =
                (bid.auction, bid.bidder, bid.price, bid.date_time);
            let (day, minute) = (day_name(day(time)), minute_name(minute(time)));
            let line = format!(
                "{auction},{bidder},{price},{time},{},{day},{minute}",
                bid.extra
            );
            Some((time.div_euclid(MINUTE_MILLIS), line))
        }))
        .key_by(|(minute, _)| *minute)
        .map(|(_, line)| line.clone())
        .with_timed_store::<()>("minutes")
        .process("minutes", |context| {
            Ok(Minutes {
                ends: context.timed_store("minutes")?,
                open: HashSet::new(),
                watermark: Timestamp::MIN,
                late: context.late("minutes", None)?,
                due: Due::default(),
            })
        })
        .sink(FilesByMinute::new(&inputs.directory));
}
