//! A transaction in a partition that no coordinator knows of: found and ended by us.

use std::time::Duration;

use onceflow::client::transport::KafkaSettings;
use onceflow::client::{Admin, wait};
use onceflow::internals::protocol::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use onceflow::prelude::*;
use onceflow::runtime::{JobPhase, Running};
use onceflow::types::{Isolation, TopicName};

use super::older_protocol::Unguarded;
use super::proxy::until;
use super::stage::{Stage, World, commit, stage};
use crate::support::raw::ask;

/// Whether the broker asks the coordinator before it takes a batch of a transaction (KIP-890).
fn set_verification(stage: &Stage, is_on: bool) {
    const BROKER: i8 = 4;
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: BROKER,
            resource_name: "1".to_owned(),
            configs: vec![AlterableConfig {
                name: "transaction.partition.verification.enable".to_owned(),
                config_operation: 0,
                value: Some(is_on.to_string()),
            }],
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    let answer = ask(&stage.cluster.bootstrap(), 1, &request).unwrap();
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

#[test]
fn k8_a_hanging_transaction_is_found_and_readers_go_on_when_it_is_ended() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "hanging", "v2");
    let writer = world.writer();
    world.append(&writer, "before").unwrap();
    commit(&writer);
    world.until_nothing_is_open();
    // A batch that is late by a whole transaction, as brokers before KIP-890 took it.
    set_verification(&stage, false);
    let mut late = Unguarded::begin(&world, "hanging-late");
    // Brokers hear of the setting by and by.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while late.write_unannounced("late") != 0 {
        assert!(std::time::Instant::now() < deadline, "it is not taken");
    }
    set_verification(&stage, true);
    world.append(&writer, "behind").unwrap();
    // One that is open and known is not taken for one that hangs.
    let admin = Admin::new(world.transport.clone());
    let found = wait(admin.hanging_transactions(&world.partition())).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].producer, late.identity());
    commit(&writer);
    let stands_at = world.end(Isolation::ReadCommitted);
    assert_eq!(found[0].current_transaction_start, Some(stands_at));
    assert_eq!(world.committed(), ["before"], "readers wait");
    let folder = tempfile::tempdir().unwrap();
    let job = watch(&stage, &world, &folder);
    wait_until_it_is_seen(&job, late.identity().id.0);
    #[cfg(feature = "dashboard")]
    {
        let page = job.dashboard("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", page.address());
        let producer = late.identity().id.0.to_string();
        let nothing = &mut |step: &str| panic!("the browser asks for {step}");
        crate::dashboard::look("hanging", &url, &[&producer], nothing);
    }
    let end = |producer| wait(admin.abort_hanging_transaction(&world.partition(), producer));
    // The other one is known to its coordinator, and not open any more.
    let refused = end(writer.identity().id).unwrap_err().to_string();
    assert!(refused.contains("hangs in"), "{refused}");
    end(late.identity().id).unwrap();
    world.until_committed(&["before", "behind"]);
    let found = wait(admin.hanging_transactions(&world.partition())).unwrap();
    assert!(found.is_empty(), "{found:?}");
    wait(job.caught_up()).unwrap();
    let status = wait(job.status());
    assert_eq!(status.transactions, []);
    assert_eq!(status.lag(), Some(0));
    wait(job.stop()).unwrap();
}

/// A job that reads the topic.
fn watch(stage: &Stage, world: &World<'_>, folder: &tempfile::TempDir) -> Running {
    let settings = KafkaSettings::new(&stage.cluster.bootstrap())
        .and_then(|it| it.with("state.dir", &folder.path().display().to_string()));
    let log = Log::kafka_with(settings.unwrap()).unwrap();
    let copies = TopicName::new("hanging-copies").unwrap();
    wait(log.admin().create_topic(&copies, 1)).unwrap();
    let job = Job::new("hanging-watched");
    job.source(topic::<str>(world.name))
        .sink(topic("hanging-copies"));
    let commit = Commit::every(Duration::from_millis(50));
    job.exactly_once(commit).start(&log).unwrap()
}

/// The view of the job names the transaction as one that nobody ends.
fn wait_until_it_is_seen(job: &Running, producer_id: i64) {
    until("the job reads", || {
        wait(job.status()).phase == JobPhase::Running
    });
    let status = wait(job.status());
    assert_eq!(status.log_error, None);
    let said = format!("is held up by a hanging transaction of producer {producer_id}");
    assert!(status.sentence.contains(&said), "{}", status.sentence);
    let [hanging] = &*status.transactions else {
        panic!("{:?}", status.transactions);
    };
    assert!(hanging.is_hanging && hanging.transactional_id.is_none());
    assert_eq!(hanging.producer_id, producer_id);
}
