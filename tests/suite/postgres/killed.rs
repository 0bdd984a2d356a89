//! The job is killed, the server is, both are: each row is there once, and rows with keys are the last ones.

use std::path::Path;

use onceflow::client::wait;

use super::server::Server;
use super::support::{TABLES, appended, clicks, latest, latest_in, numbers, replaced, writes};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::{feed, ms, topic_of_clicks};

const VARIABLE: &str = "ONCEFLOW_POSTGRES_CHILD";
const LIVES: usize = 24;

/// The child's entry.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn writes_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [table, workers, is_endless, data, server] = plan.split('|').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let sink = if table == "clicks" {
        appended(server)
    } else {
        replaced(server)
    };
    let launch = writes(sink, is_endless == "true").workers(workers.parse().unwrap());
    wait(launch.start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

struct World {
    server: Server,
    folder: tempfile::TempDir,
    table: &'static str,
    count: i64,
}

impl World {
    fn new(table: &'static str) -> Option<Self> {
        let server = Server::start()?;
        server.ask(TABLES);
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("data"));
        topic_of_clicks(&log, "in", 1);
        log.close().unwrap();
        Some(Self {
            server,
            folder,
            table,
            count: 0,
        })
    }

    fn feed(&mut self, count: i64) {
        let log = open(&self.folder.path().join("data"));
        let some = clicks(self.count, count);
        some.chunks(20).for_each(|chunk| feed(&log, "in", 0, chunk));
        self.count += count;
        log.close().unwrap();
    }

    fn start(&self, workers: usize, is_endless: bool, failpoint: &str) -> Process {
        let data = self.folder.path().join("data");
        let (table, server) = (self.table, self.server.url());
        let plan = format!("{table}|{workers}|{is_endless}|{}|{server}", data.display());
        let test = "postgres::killed::writes_until_it_is_killed";
        start_child(test, (VARIABLE, &plan), failpoint)
    }

    /// One life: the job dies at a failpoint or at any moment, the server at another moment, or not.
    fn live(&mut self, life: usize) {
        let points = [
            "cycle.drained",
            "sink.prepared",
            "commit.before_decision",
            "commit.decision_written",
            "commit.after_decision",
            "cycle.committed",
            "sink.committed",
            "sink.recovered",
        ];
        let failpoint = match life % 3 {
            1 => String::new(),
            _ => format!("{}=kill@{}", points[life % points.len()], 1 + life % 4),
        };
        let mut process = self.start(1 + life % 3, true, &failpoint);
        let moment = ms(150 + 37 * (life as u64 % 11));
        if life.is_multiple_of(3) {
            process.is_killed_within(ms(2_000));
            return;
        }
        process.is_killed_within(moment);
        self.server.kill();
        // The job meets a server that is gone, then one that recovers; sometimes it is killed meanwhile.
        process.is_killed_within(ms(20 + 60 * (life as u64 % 3)));
        if life % 4 == 1 {
            drop(process);
            self.server.start_again();
            return;
        }
        self.server.start_again();
        process.is_killed_within(ms(400));
    }

    fn check(&self) {
        if self.table == "clicks" {
            let found = numbers(&self.server);
            assert!(
                found.windows(2).all(|pair| pair[0] < pair[1]),
                "each row once"
            );
        }
    }

    fn finish(&mut self) {
        let mut last = self.start(2, false, "");
        assert!(last.0.wait().unwrap().success());
        let commits = self
            .server
            .number("SELECT sum(epoch) FROM onceflow_lineages");
        assert!(
            commits > 10,
            "the job was at work between the kills: {commits} epochs"
        );
        match self.table {
            "clicks" => assert!(numbers(&self.server).into_iter().eq(0..self.count)),
            _ => assert_eq!(latest_in(&self.server), latest(&clicks(0, self.count))),
        }
    }
}

fn survives_kills(table: &'static str) {
    let Some(mut world) = World::new(table) else {
        return;
    };
    for life in 0..LIVES {
        world.feed(60);
        world.live(life);
        world.check();
    }
    world.finish();
}

#[test]
fn o1_o4_o6_o10_a_table_that_grows_has_each_row_once_whatever_is_killed() {
    survives_kills("clicks");
}

#[test]
fn o5_o6_o8_a_table_with_keys_has_the_last_row_of_each_whatever_is_killed() {
    survives_kills("latest");
}
