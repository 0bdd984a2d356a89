//! The cluster that other tests stand on does what they ask of it.

use crate::support::kafka::KafkaCluster;
use crate::support::peers;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

#[test]
fn a_cluster_survives_the_kill_and_the_stop_of_a_broker() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let mut cluster = KafkaCluster::start(3);
    cluster.create_topic("three", 2);
    let features = cluster.tool("org.apache.kafka.tools.FeatureCommand", &["describe"]);
    let transactions = features
        .lines()
        .find(|line| line.contains("transaction.version"));
    let finalised = transactions.and_then(|line| line.split("FinalizedVersionLevel: ").nth(1));
    assert!(
        finalised.is_some_and(|level| level.starts_with('2')),
        "{features}"
    );
    cluster.kill(2);
    cluster.stop(1);
    cluster.restart(1);
    cluster.restart(2);
    let described = cluster.tool(TOPICS, &["--describe", "--topic", "three"]);
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
}
