//! The job that is looked at: orders, their payments, and what is sold. It also runs in a process of its own, to be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerRecord};
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Running;
use onceflow::types::TopicName;

/// Tells a process of this binary to be the job: `FOLDER ADDRESS`.
const VARIABLE: &str = "ONCEFLOW_DASHBOARD_CHILD";
const GOODS: [&str; 6] = ["tea", "coffee", "rum", "jam", "honey", "bread"];

type Order = (u64, i64, String);

fn parse(line: &str) -> Order {
    let mut words = line.split(' ');
    let mut number = || words.next().and_then(|it| it.parse::<i64>().ok());
    let (order, time) = (number().unwrap_or(0), number().unwrap_or(0));
    let what = words.next().unwrap_or("nothing").to_owned();
    (order.unsigned_abs(), time, what)
}

/// Orders with their payments, and what was sold in each ten seconds.
pub(super) fn start(log: &Log) -> Running {
    for (name, partitions) in [("orders", 2), ("payments", 1)] {
        let name = TopicName::new(name).unwrap();
        // A process that starts again finds it.
        let _ = wait(log.admin().create_topic(&name, partitions));
    }
    let job = Job::new("shop");
    let read = |name: &str| {
        job.source(topic::<str>(name).codec(Text))
            .map(parse)
            .event_time(
                |(_, time, _)| *time,
                Watermarks::out_of_order(Duration::from_secs(2)),
            )
    };
    let (orders, sold) = read("orders").boxed().tee();
    sold.key_by(|(_, _, goods)| goods.clone())
        .window(FixedWindows::tumbling(Duration::from_secs(10)))
        .count("per-goods")
        .sink(topic("sales"));
    orders
        .key_by(|(number, ..)| *number)
        .join("settle", read("payments").key_by(|(number, ..)| *number))
        .within(Duration::ZERO, Duration::from_secs(30))
        .inner(|order: &Order, payment: &Order| format!("{} paid with {}", order.2, payment.2))
        .entries(|_, told| told.clone())
        .sink(topic("settled").codec(Text));
    let commit = Commit::every(Duration::from_millis(100));
    job.exactly_once(commit).workers(2).start(log).unwrap()
}

/// Somebody who orders and pays until it is dropped.
pub(super) struct Feeder {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// Orders go to so many partitions.
    pub(super) fn begin(log: &Log, partitions: i32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (stop, config) = (Arc::clone(&is_over), log.producer_config().unwrap());
        let (transport, clock) = (log.transport(), Arc::clone(&log.env().clock));
        let body = move || {
            let producer = Producer::<str, str>::new(transport, config).unwrap();
            let orders = TopicName::new("orders").unwrap();
            let payments = TopicName::new("payments").unwrap();
            let mut number = 0u64;
            while !stop.load(Ordering::Acquire) {
                let now = clock.wall().0;
                for _ in 0..25 {
                    number += 1;
                    let goods = GOODS[usize::try_from(number * number % 11 % 6).unwrap()];
                    let partition = i32::try_from(number % 7).unwrap() % partitions;
                    let order = format!("{number} {now} {goods}");
                    let payment = format!("{number} {} {}", now - 500, number % 900 + 100);
                    let order = ProducerRecord::new(&orders)
                        .value(&*order)
                        .partition(partition);
                    let payment = ProducerRecord::new(&payments).value(&*payment);
                    if wait(producer.send(order)).is_err() || wait(producer.send(payment)).is_err()
                    {
                        return;
                    }
                }
                clock.sleep(Duration::from_millis(10));
            }
        };
        Self {
            is_over,
            thread: Some(std::thread::spawn(body)),
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The job in a process of its own, killed when this is dropped.
pub(super) struct JobProcess(Child);

impl JobProcess {
    pub(super) fn start(folder: &Path, address: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dashboard::child::runs_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(VARIABLE, format!("{} {address}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for JobProcess {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "a test of this module starts it, in a process that it kills"]
fn runs_until_it_is_killed() {
    let Ok(told) = std::env::var(VARIABLE) else {
        return;
    };
    let (folder, address) = told.rsplit_once(' ').unwrap();
    let log = Log::embedded(PathBuf::from(folder).join("data")).unwrap();
    let running = start(&log);
    let _page = running.dashboard(address).unwrap();
    let _feeder = Feeder::begin(&log, 2);
    wait(running.finished()).unwrap();
}
