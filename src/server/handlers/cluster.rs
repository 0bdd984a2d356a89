//! FindCoordinator, DescribeCluster: there is one broker, and it is this one.

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{NODE_ID, NONE};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::protocol::wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

/// Key types of FindCoordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several coordinators are asked for at once.
const BATCHED_FROM: i16 = 4;
/// Endpoint types of DescribeCluster.
const BROKERS: i8 = 1;

pub(in crate::server) fn find_coordinator(
    call: &Call<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if call.version() >= BATCHED_FROM {
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| coordinator(call, request.key_type, key));
        return FindCoordinatorResponse {
            coordinators: coordinators.collect(),
            ..FindCoordinatorResponse::default()
        };
    }
    let found = coordinator(call, request.key_type, request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

fn coordinator(call: &Call<'_>, key_type: i8, key: String) -> Coordinator {
    let allowed = match key_type {
        GROUP => call.allow_group(Operation::Describe, &key),
        TRANSACTION => call.allow_transactions(Operation::Describe, &key),
        _ => Err(BrokerError::new(
            ErrorCode::InvalidRequest,
            format!("coordinators of type {key_type} are not known here"),
        )),
    };
    match allowed {
        Ok(()) => Coordinator {
            key,
            node_id: NODE_ID,
            host: call.session.advertised().host.clone(),
            port: i32::from(call.session.advertised().port),
            error_code: NONE,
            error_message: None,
        },
        Err(error) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: error.code.code(),
            error_message: Some(error.message),
            ..Coordinator::default()
        },
    }
}

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some("this is a broker: there are no controllers to ask for".to_owned()),
            endpoint_type: BROKERS,
            ..DescribeClusterResponse::default()
        };
    }
    let address = call.session.advertised();
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: call.broker().cluster_id().to_string(),
        controller_id: NODE_ID,
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => authorized_operations(call),
            false => i32::MIN,
        },
        brokers: vec![DescribeClusterBroker {
            broker_id: NODE_ID,
            host: address.host.clone(),
            port: i32::from(address.port),
            ..DescribeClusterBroker::default()
        }],
        ..DescribeClusterResponse::default()
    }
}

/// Returns the client's operations on the cluster; none, as far as those hear who may not see it.
pub(super) fn authorized_operations(call: &Call<'_>) -> i32 {
    match call.session.may_see(Resource::Cluster) {
        true => call.authorized_operations(Resource::Cluster),
        false => 0,
    }
}
