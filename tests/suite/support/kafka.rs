//! A real Apache Kafka on 127.0.0.1: started, killed and restarted by tests, gone when dropped.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use onceflow::internals::protocol::wire::Request;
use onceflow::internals::protocol::wire::messages::find_coordinator::FindCoordinatorRequest;
use onceflow::internals::protocol::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic,
};

use super::{peers, raw};

/// Longest time until a broker serves, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(120);

/// Log line of a broker that serves.
const READY: &str = "Kafka Server started";

/// Runs a broker; ends it when told so, and when this process is gone: its standard input then ends.
const GUARD: &str = r#"
"$@" </dev/null >>"$LOG" 2>&1 &
broker=$!
echo "$broker"
while read -r signal; do
    kill -s "$signal" "$broker"
    if [ "$signal" = TERM ]; then wait "$broker"; exit 0; fi
done
kill -s KILL "$broker"
wait "$broker"
"#;

/// Number of brokers, and settings that are not the usual ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct KafkaOptions {
    /// 1 or 3; with 3, topics have three replicas of which two must be in sync.
    pub(crate) brokers: usize,
    /// Settings by Kafka's names, after ours: the last one counts.
    pub(crate) settings: Vec<(String, String)>,
    /// More listeners than the usual one, `NAME://host:port`.
    pub(crate) listeners: Vec<String>,
    /// Users that exist from the beginning, as `kafka-storage.sh format --add-scram` takes them.
    pub(crate) scram_users: Vec<String>,
    /// Proxies in front of the brokers, by their ports, in the brokers' order. Who begins with one is told of the
    /// others; the brokers themselves speak to each other directly.
    pub(crate) proxies: Vec<u16>,
}

/// A running cluster: `KRaft`, each broker also a controller, `transaction.version` 2.
pub(crate) struct KafkaCluster {
    directory: tempfile::TempDir,
    brokers: Vec<Broker>,
}

struct Broker {
    id: usize,
    port: u16,
    controller_port: u16,
    /// Where the proxy in front of it leads, and the proxy's own port.
    behind_proxy: Option<(u16, u16)>,
    directory: PathBuf,
    process: Option<Guarded>,
}

/// A broker's process behind its guard.
struct Guarded {
    guard: Child,
    orders: ChildStdin,
}

#[allow(
    dead_code,
    reason = "what tests do to a cluster; not each door has its user yet"
)]
impl KafkaCluster {
    /// Starts a cluster of 1 or 3 brokers and waits until all serve.
    ///
    /// # Panics
    ///
    /// When Java or the jars cannot be had, or a broker does not serve in time.
    pub(crate) fn start(brokers: usize) -> Self {
        Self::start_with(&KafkaOptions {
            brokers,
            ..KafkaOptions::default()
        })
    }

    /// As [`KafkaCluster::start`], with settings.
    pub(crate) fn start_with(options: &KafkaOptions) -> Self {
        assert!(
            peers::are_wanted(&["kafka"]),
            "ask `peers::are_wanted` before starting a cluster"
        );
        let directory = tempfile::tempdir().unwrap();
        let mut ports = free_ports(options.brokers * 3).into_iter();
        let brokers: Vec<Broker> = (1..=options.brokers)
            .map(|id| Broker {
                id,
                port: ports.next().unwrap(),
                controller_port: ports.next().unwrap(),
                behind_proxy: options
                    .proxies
                    .get(id - 1)
                    .map(|proxy| (ports.next().unwrap(), *proxy)),
                directory: directory.path().join(id.to_string()),
                process: None,
            })
            .collect();
        let mut cluster = Self { directory, brokers };
        cluster.prepare(options);
        cluster.each(Broker::launch);
        cluster.each(Broker::wait_until_ready);
        cluster
    }

    /// The addresses of all brokers, as `bootstrap.servers` takes them.
    pub(crate) fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// The address of one broker; ids count from 1.
    pub(crate) fn address(&self, id: usize) -> String {
        self.brokers[id - 1].address()
    }

    /// Where the proxy in front of a broker must lead.
    pub(crate) fn behind_proxy(&self, id: usize) -> String {
        let (port, _) = self.brokers[id - 1].behind_proxy.expect("it has a proxy");
        format!("127.0.0.1:{port}")
    }

    /// The broker that leads a partition.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> usize {
        let topic = MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            ..MetadataRequest::default()
        };
        self.until_known(8, &request, |answer| {
            let partitions = &answer.topics.first()?.partitions;
            let found = partitions.iter().find(|it| it.partition_index == partition);
            found.map(|partition| partition.leader_id)
        })
    }

    /// The broker that coordinates a transactional id.
    pub(crate) fn transaction_coordinator(&self, id: &str) -> usize {
        self.coordinator(id, 1)
    }

    /// The broker that coordinates a group.
    pub(crate) fn group_coordinator(&self, id: &str) -> usize {
        self.coordinator(id, 0)
    }

    fn coordinator(&self, id: &str, kind: i8) -> usize {
        let request = FindCoordinatorRequest {
            key_type: kind,
            coordinator_keys: vec![id.to_owned()],
            ..FindCoordinatorRequest::default()
        };
        self.until_known(4, &request, |answer| {
            answer.coordinators.first().map(|found| found.node_id)
        })
    }

    /// Asks the brokers that run until one of them names another that runs.
    fn until_known<R: Request>(
        &self,
        version: i16,
        request: &R,
        node: impl Fn(&R::Response) -> Option<i32>,
    ) -> usize {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let running = self.brokers.iter().filter(|it| it.process.is_some());
            for broker in running {
                let answer = raw::ask(&broker.address(), version, request).ok();
                let id = answer.and_then(|answer| node(&answer)).unwrap_or(-1);
                let named = self
                    .brokers
                    .iter()
                    .find(|it| i32::try_from(it.id) == Ok(id));
                if named.is_some_and(|named| named.process.is_some()) {
                    return named.map(|named| named.id).unwrap();
                }
            }
            assert!(Instant::now() < deadline, "nobody is responsible");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A broker's data directory.
    pub(crate) fn data(&self, id: usize) -> PathBuf {
        self.brokers[id - 1].data()
    }

    /// Kills a broker with SIGKILL.
    pub(crate) fn kill(&mut self, id: usize) {
        self.brokers[id - 1].kill();
    }

    /// Ends a broker with SIGTERM, which hands its leaderships over, and waits for its end.
    pub(crate) fn stop(&mut self, id: usize) {
        self.brokers[id - 1].stop();
    }

    /// Stops a broker's process where it stands (SIGSTOP); [`KafkaCluster::resume`] lets it go on.
    pub(crate) fn pause(&mut self, id: usize) {
        self.brokers[id - 1].order("STOP");
    }

    /// Lets a paused broker go on.
    pub(crate) fn resume(&mut self, id: usize) {
        self.brokers[id - 1].order("CONT");
    }

    /// Starts a killed or stopped broker on its old data and waits until it serves.
    pub(crate) fn restart(&mut self, id: usize) {
        let broker = &mut self.brokers[id - 1];
        broker.launch();
        broker.wait_until_ready();
    }

    /// Kills all brokers at once.
    pub(crate) fn kill_all(&mut self) {
        self.each(Broker::kill);
    }

    /// Starts all brokers that do not run, and waits until all serve.
    pub(crate) fn restart_all(&mut self) {
        self.each(|broker| {
            if broker.process.is_none() {
                broker.launch();
            }
        });
        self.each(Broker::wait_until_ready);
    }

    /// Runs one of Kafka's own tools (a class and its arguments, without `--bootstrap-server`) and gives its output.
    pub(crate) fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let bootstrap = self.bootstrap();
        let mut java = peers::java();
        java.arg(class)
            .args(["--bootstrap-server", &bootstrap])
            .args(arguments);
        peers::output_of(&mut java)
    }

    /// Creates a topic with as many replicas as there are brokers.
    pub(crate) fn create_topic(&self, name: &str, partitions: usize) {
        let partitions = partitions.to_string();
        self.tool(
            "org.apache.kafka.tools.TopicCommand",
            &["--create", "--topic", name, "--partitions", &partitions],
        );
    }

    /// Where the cluster's files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn each(&mut self, act: impl Fn(&mut Broker)) {
        self.brokers.iter_mut().for_each(act);
    }

    /// Writes each broker's settings, and its empty formatted directory.
    fn prepare(&self, options: &KafkaOptions) {
        let voters: Vec<String> = self
            .brokers
            .iter()
            .map(|broker| format!("{}@127.0.0.1:{}", broker.id, broker.controller_port))
            .collect();
        for broker in &self.brokers {
            std::fs::create_dir_all(&broker.directory).unwrap();
            let text = broker.settings(&voters.join(","), options);
            std::fs::write(broker.settings_file(), text).unwrap();
        }
        self.format(&options.scram_users);
    }

    /// Formats the first broker's directory with Kafka's tool; the others get a copy under their own ids,
    /// which saves the start of a virtual machine each.
    fn format(&self, scram_users: &[String]) {
        let first = &self.brokers[0];
        let mut java = peers::java();
        java.args(["kafka.tools.StorageTool", "format", "-t"])
            .args([CLUSTER_ID, "-c"])
            .arg(first.settings_file());
        for user in scram_users {
            java.args(["--add-scram", user]);
        }
        peers::output_of(&mut java);
        let read = |name: &str| std::fs::read(first.data().join(name)).unwrap();
        let (checkpoint, meta) = (read("bootstrap.checkpoint"), read("meta.properties"));
        let meta = String::from_utf8(meta).unwrap();
        for broker in &self.brokers[1..] {
            std::fs::create_dir_all(broker.data()).unwrap();
            std::fs::write(broker.data().join("bootstrap.checkpoint"), &checkpoint).unwrap();
            // Kafka makes up the directory's own id when there is none.
            let lines = meta
                .lines()
                .filter(|line| !line.starts_with("directory.id"));
            let mut own = String::new();
            for line in lines {
                let is_id = line.starts_with("node.id");
                let id = format!("node.id={}", broker.id);
                writeln!(own, "{}", if is_id { &id } else { line }).unwrap();
            }
            std::fs::write(broker.data().join("meta.properties"), own).unwrap();
        }
    }
}

/// Each cluster has its own directory and ports; the id may be the same.
const CLUSTER_ID: &str = "T25jZWZsb3dUZXN0cy0tLQ";

impl Broker {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn settings_file(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log.txt")
    }

    fn settings(&self, voters: &str, options: &KafkaOptions) -> String {
        let (id, port, controller) = (self.id, self.port, self.controller_port);
        let (replicas, in_sync) = (options.brokers, options.brokers / 2 + 1);
        let more: String = options.listeners.iter().map(|l| format!(",{l}")).collect();
        let mut text = format!(
            "node.id={id}\n\
             process.roles=broker,controller\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.voters={voters}\n\
             log.dirs={}\n\
             default.replication.factor={replicas}\n\
             min.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={replicas}\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr={in_sync}\n\
             transaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=6000\n\
             broker.heartbeat.interval.ms=500\n\
             num.network.threads=2\n\
             num.io.threads=4\n\
             log.cleaner.dedupe.buffer.size=8388608\n",
            self.data().display()
        );
        if let Some((inside, proxy)) = self.behind_proxy {
            write!(
                text,
                "listeners=PLAINTEXT://127.0.0.1:{port},OUTSIDE://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port},OUTSIDE://127.0.0.1:{proxy}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 inter.broker.listener.name=PLAINTEXT\n"
            )
            .unwrap();
        }
        for (name, value) in &options.settings {
            writeln!(text, "{name}={value}").unwrap();
        }
        text
    }

    fn launch(&mut self) {
        assert!(self.process.is_none(), "broker {} runs already", self.id);
        // Readiness is read from the log, so each life has a log of its own.
        drop(std::fs::remove_file(self.log_file()));
        let java = {
            let mut java = peers::java();
            java.arg("kafka.Kafka").arg(self.settings_file());
            java
        };
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(java.get_program())
            .args(java.get_args())
            .env("LOG", self.log_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        let stdout = guard.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut pid).unwrap();
        assert!(!pid.trim().is_empty(), "broker {} did not start", self.id);
        let orders = guard.stdin.take().unwrap();
        self.process = Some(Guarded { guard, orders });
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
            if log.contains(READY) {
                return;
            }
            let is_fatal = log.contains("Exiting Kafka") || log.contains("Fatal error");
            assert!(
                !is_fatal && Instant::now() < deadline,
                "broker {} does not serve:\n{log}",
                self.id
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn order(&mut self, signal: &str) {
        let process = self.process.as_mut().expect("the broker runs");
        writeln!(process.orders, "{signal}").unwrap();
    }

    fn kill(&mut self) {
        let Some(Guarded { mut guard, orders }) = self.process.take() else {
            return;
        };
        // The end of its input tells the guard to kill the broker.
        drop(orders);
        drop(guard.wait());
    }

    fn stop(&mut self) {
        self.order("TERM");
        let Guarded { mut guard, orders } = self.process.take().expect("the broker runs");
        guard.wait().unwrap();
        drop(orders);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that are free now, all different, and below those that outgoing connections take: a broker that is down
/// for a while finds its port free when it comes back.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = u16::try_from(std::process::id() % 500).unwrap_or(0) * 20;
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|next| 20_000 + seed.wrapping_add(next) % 12_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect()
}
