//! The sending end of event time between processes: a mark behind the records of a cycle, in every partition of the topic.
//!
//! A mark is in the transaction of its cycle, and speaks for the tasks that the worker has in it; tasks come and go between two
//! cycles only. It is written where time has come farther, once a cycle.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::appender::TopicAppender;
use super::context::{JobContext, OperatorContext, Producer};
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::senders::{Mark, Origin, Senders, Tasks, Way};
use crate::runtime::contract::time::Advance;
use crate::types::Timestamp;

/// Where a chain of a job that is spread begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    /// The name of the source, or of the step.
    pub(crate) name: Arc<str>,
    /// Its tasks in all processes.
    pub(crate) tasks_count: u32,
}

/// The tasks that a feed has, for those behind it that speak for them.
pub(crate) type SharedTasks = Rc<RefCell<Tasks>>;

/// Marks of one sending end.
pub(super) struct Marks {
    job: Arc<JobContext>,
    way: Way,
    tasks: SharedTasks,
    now: Option<Advance>,
    told: Option<Advance>,
    scratch: Vec<u8>,
}

impl Marks {
    /// Those of a way to the topic of `exchange`; `None` where nobody asks for the time, or nobody tells it.
    pub(super) fn new(exchange: usize, context: &mut OperatorContext) -> Option<Self> {
        let job = context.shared_job();
        let tells_time = job.uses_time && !job.is_of_letters(context.producer);
        tells_time.then(|| Self {
            job,
            way: context.note_way_to(exchange),
            tasks: context.tasks(),
            now: None,
            told: None,
            scratch: Vec::new(),
        })
    }

    /// Time has come so far in front of the topic.
    pub(super) fn note(&mut self, advance: Advance) {
        self.now = Some(advance);
    }

    /// All records of the cycle are appended.
    pub(super) fn end_cycle(&mut self, appender: &mut TopicAppender) -> Flow {
        let tasks = self.tasks.borrow();
        let is_news = |now: &Advance| now.is_idle || now.watermark > Timestamp::MIN;
        let Some(told) = self.now.filter(is_news) else {
            return Ok(());
        };
        if self.told == Some(told) || tasks.is_empty() {
            return Ok(());
        }
        let mark = Mark {
            way: self.way.clone(),
            tasks: tasks.clone(),
            told,
        };
        mark.encode(&mut self.scratch);
        let now = self.job.env.clock.wall();
        for partition in 0..appender.partitions_count() {
            appender.append(partition, now, None, Some(&self.scratch))?;
        }
        self.told = Some(told);
        Ok(())
    }
}

impl OperatorContext {
    /// The tasks of the feed being built.
    pub(crate) fn tasks(&self) -> SharedTasks {
        Rc::clone(&self.tasks)
    }

    /// Notes that what is being built sends to the topic of `exchange`; returns the way.
    pub(crate) fn note_way_to(&mut self, exchange: usize) -> Way {
        let (Producer::Source(feed) | Producer::Exchange(feed)) = self.producer;
        let beginning = &self.job.beginnings[feed];
        let mut way = Way {
            from: match feed < self.sources_count {
                true => Origin::Source,
                false => Origin::Step,
            },
            name: Arc::clone(&beginning.name),
            number: 0,
        };
        let is_alike = |it: &&(Senders, usize)| {
            it.1 == exchange && (it.0.way.from, &it.0.way.name) == (way.from, &way.name)
        };
        let alike = self.ways.iter().filter(is_alike).count();
        way.number = u8::try_from(alike).unwrap_or(u8::MAX);
        let senders = Senders {
            way: way.clone(),
            tasks_count: beginning.tasks_count,
        };
        self.ways.push((senders, exchange));
        way
    }
}
