//! The queries, one a file, and what they share: the streams of events, and the topic of results.
//!
//! A row of results is a tuple of the columns of the published SQL, times as milliseconds since 1970. Queries whose SQL gives updates
//! write a row under its key each time that it changes; the last row of a key stands.

mod bands;
mod calendar;
mod files_by_minute;
mod join;
mod q0;
mod q1;
mod q10;
mod q11;
mod q12;
mod q13;
mod q14;
mod q15;
mod q16;
mod q17;
mod q18;
mod q19;
mod q2;
mod q20;
mod q21;
mod q22;
mod q3;
mod q4;
mod q5;
mod q6;
mod q7;
mod q8;
mod q9;
mod winning;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events::{Auction, Bid, Event, Format, Person};
use crate::codec::Datum;
use crate::env::Clock;
use crate::runtime::{Job, Stream, Topic, Unkeyed, Upstream, Watermarks, topic};

/// The topic of all events.
pub const EVENTS: &str = "nexmark-events";
/// The topic of a query's results.
pub const RESULTS: &str = "nexmark-results";
/// The topic of the side input of q13: 10,000 keys, each with itself as text.
pub const SIDE_INPUT: &str = "nexmark-side-input";
/// Rows of the side input.
pub const SIDE_INPUT_ROWS: u64 = 10_000;
/// Most disorder of events, as in the published table definition.
const DISORDER: Duration = Duration::from_secs(4);

/// The queries of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
#[allow(missing_docs, reason = "each is described in its file")]
pub enum Query {
    Q0,
    Q1,
    Q2,
    Q3,
    Q4,
    Q5,
    Q6,
    Q7,
    Q8,
    Q9,
    Q10,
    Q11,
    Q12,
    Q13,
    Q14,
    Q15,
    Q16,
    Q17,
    Q18,
    Q19,
    Q20,
    Q21,
    Q22,
}

/// Rule for rows of a query that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Rows never change.
    AppendOnly,
    /// A row is written with each change.
    EveryUpdate,
    /// A row that changed is written once a commit.
    PerCommit,
}

impl Query {
    /// The query's name, and that of its job.
    #[must_use]
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 23] = [
            "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13",
            "q14", "q15", "q16", "q17", "q18", "q19", "q20", "q21", "q22",
        ];
        NAMES[self as usize]
    }

    /// Returns the rule for rows that change.
    #[must_use]
    pub fn policy(self) -> Policy {
        match self {
            Self::Q4 | Self::Q15 | Self::Q16 => Policy::PerCommit,
            Self::Q9 | Self::Q17 | Self::Q18 | Self::Q19 => Policy::EveryUpdate,
            _ => Policy::AppendOnly,
        }
    }

    /// The query as a job.
    #[must_use]
    pub fn job(self, inputs: &Inputs) -> Job {
        let job = Job::new(&format!("{}{}", self.name(), inputs.run));
        let build = match self {
            Self::Q0 => q0::build,
            Self::Q1 => q1::build,
            Self::Q2 => q2::build,
            Self::Q3 => q3::build,
            Self::Q4 => q4::build,
            Self::Q5 => q5::build,
            Self::Q6 => q6::build,
            Self::Q7 => q7::build,
            Self::Q8 => q8::build,
            Self::Q9 => q9::build,
            Self::Q10 => q10::build,
            Self::Q11 => q11::build,
            Self::Q12 => q12::build,
            Self::Q13 => q13::build,
            Self::Q14 => q14::build,
            Self::Q15 => q15::build,
            Self::Q16 => q16::build,
            Self::Q17 => q17::build,
            Self::Q18 => q18::build,
            Self::Q19 => q19::build,
            Self::Q20 => q20::build,
            Self::Q21 => q21::build,
            Self::Q22 => q22::build,
        };
        build(&job, inputs);
        job
    }
}

/// The surroundings of a query: where its events come from and its rows go to.
#[derive(Clone)]
pub struct Inputs {
    /// The form of events and rows in topics.
    pub format: Format,
    /// The clock of q12.
    pub clock: Arc<dyn Clock>,
    /// Time that each event is held up, so that there is time to kill a process; zero for not at all.
    pub delay: Duration,
    /// Where q10 writes its files.
    pub directory: PathBuf,
    /// The end of the names of the job and of the topic of results, where several runs share a log; else empty.
    pub run: String,
}

impl Inputs {
    /// The topic of results.
    #[must_use]
    pub fn results_topic(&self) -> String {
        format!("{RESULTS}{}", self.run)
    }

    /// All events, in no particular order.
    fn events(&self, job: &Job) -> Stream<Event, impl Upstream<Unkeyed, Event>> {
        let (clock, delay) = (Arc::clone(&self.clock), self.delay);
        let source = topic::<Event>(EVENTS).codec(self.format).until_end();
        job.source(source).inspect(move |_| {
            if !delay.is_zero() {
                clock.sleep(delay);
            }
        })
    }

    /// All events with their time, which goes on with each of them.
    fn timed_events(&self, job: &Job) -> Stream<Event, impl Upstream<Unkeyed, Event>> {
        let watermarks = Watermarks::out_of_order(DISORDER);
        self.events(job).event_time(Event::date_time, watermarks)
    }

    /// Maps each bid by `of`.
    fn bids<U: 'static>(
        &self,
        job: &Job,
        of: impl Fn(&Bid) -> Option<U> + Clone + Send + Sync + 'static,
    ) -> Stream<U, impl Upstream<Unkeyed, U>> {
        self.events(job).filter_map(in_bids(of))
    }

    /// Maps each bid by `of`, with its time.
    fn timed_bids<U: 'static>(
        &self,
        job: &Job,
        of: impl Fn(&Bid) -> Option<U> + Clone + Send + Sync + 'static,
    ) -> Stream<U, impl Upstream<Unkeyed, U>> {
        self.timed_events(job).filter_map(in_bids(of))
    }

    /// Where rows go. They have the times of their events, which are years old.
    fn results<R: Datum>(&self) -> Topic<R, Format>
    where
        Format: crate::codec::Codec<R>,
    {
        topic::<R>(&self.results_topic())
            .partitions(4)
            .config("retention.ms", "-1")
            .codec(self.format)
    }
}

/// `of` for people, nothing for other events.
fn in_people<U>(
    of: impl Fn(&Person) -> Option<U> + Clone + Send + Sync + 'static,
) -> impl Fn(&Event) -> Option<U> + Clone + Send + Sync + 'static {
    move |event| event.person().and_then(&of)
}

/// `of` for auctions, nothing for other events.
fn in_auctions<U>(
    of: impl Fn(&Auction) -> Option<U> + Clone + Send + Sync + 'static,
) -> impl Fn(&Event) -> Option<U> + Clone + Send + Sync + 'static {
    move |event| event.auction().and_then(&of)
}

/// `of` for bids, nothing for other events.
fn in_bids<U>(
    of: impl Fn(&Bid) -> Option<U> + Clone + Send + Sync + 'static,
) -> impl Fn(&Event) -> Option<U> + Clone + Send + Sync + 'static {
    move |event| event.bid().and_then(&of)
}
