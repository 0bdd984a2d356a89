//! DescribeAcls, CreateAcls, DeleteAcls.

use super::super::ServerError;
use super::super::dispatch::Call;
use super::super::security::{
    Acl, AclFilter, NameFilter, Operation, Pattern, PatternKind, Permission, ResourceKind,
};
use super::{NONE, broker_code, message};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::create_acls::{
    AclCreation, AclCreationResult, CreateAclsRequest, CreateAclsResponse,
};
use crate::protocol::wire::messages::delete_acls::{
    DeleteAclsFilter, DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsRequest,
    DeleteAclsResponse,
};
use crate::protocol::wire::messages::describe_acls::{
    AclDescription, DescribeAclsRequest, DescribeAclsResource, DescribeAclsResponse,
};

/// Kafka's number for "any" in filters.
const ANY: i8 = 1;
/// Kafka's number for filters by the name of a thing.
const MATCH: i8 = 2;

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let found = described(call, request);
    DescribeAclsResponse {
        error_code: broker_code(&found),
        error_message: message(&found),
        resources: found.unwrap_or_default(),
        ..DescribeAclsResponse::default()
    }
}

fn described(
    call: &Call<'_>,
    request: DescribeAclsRequest,
) -> Result<Vec<DescribeAclsResource>, BrokerError> {
    call.allow_cluster(Operation::Describe)?;
    let filter = filter(Wanted {
        resource: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    })?;
    let Some(filter) = filter else {
        return Ok(Vec::new());
    };
    let mut resources: Vec<(Pattern, DescribeAclsResource)> = Vec::new();
    // They come sorted by pattern.
    for acl in call.session.security().acls(&filter) {
        let described = AclDescription {
            principal: acl.principal.to_string(),
            host: acl.host,
            operation: acl.operation.number(),
            permission_type: acl.permission.number(),
        };
        match resources.last_mut() {
            Some((pattern, resource)) if *pattern == acl.pattern => resource.acls.push(described),
            _ => {
                let resource = DescribeAclsResource {
                    resource_type: acl.pattern.resource.number(),
                    resource_name: acl.pattern.name.clone(),
                    pattern_type: acl.pattern.kind.number(),
                    acls: vec![described],
                };
                resources.push((acl.pattern, resource));
            }
        }
    }
    Ok(resources
        .into_iter()
        .map(|(_, resource)| resource)
        .collect())
}

pub(in crate::server) fn create(call: &Call<'_>, request: CreateAclsRequest) -> CreateAclsResponse {
    let results = request.creations.into_iter().map(|creation| {
        let created = create_one(call, creation);
        AclCreationResult {
            error_code: broker_code(&created),
            error_message: message(&created),
        }
    });
    CreateAclsResponse {
        results: results.collect(),
        ..CreateAclsResponse::default()
    }
}

fn create_one(call: &Call<'_>, creation: AclCreation) -> Result<(), BrokerError> {
    call.allow_cluster(Operation::Alter)?;
    let acl = Acl {
        pattern: Pattern {
            resource: known(ResourceKind::from_number(creation.resource_type))?,
            kind: known(PatternKind::from_number(creation.resource_pattern_type))?,
            name: creation.resource_name,
        },
        principal: creation.principal.parse().map_err(refused)?,
        host: creation.host,
        operation: known(Operation::from_number(creation.operation))?,
        permission: known(Permission::from_number(creation.permission_type))?,
    };
    let created = call.session.security().create_acls(&[acl]);
    created.map_err(refused)
}

pub(in crate::server) fn delete(call: &Call<'_>, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let results = request.filters.into_iter().map(|filter| {
        let deleted = delete_matching(call, filter);
        DeleteAclsFilterResult {
            error_code: broker_code(&deleted),
            error_message: message(&deleted),
            matching_acls: deleted.unwrap_or_default(),
        }
    });
    DeleteAclsResponse {
        filter_results: results.collect(),
        ..DeleteAclsResponse::default()
    }
}

fn delete_matching(
    call: &Call<'_>,
    wanted: DeleteAclsFilter,
) -> Result<Vec<DeleteAclsMatchingAcl>, BrokerError> {
    call.allow_cluster(Operation::Alter)?;
    let filter = filter(Wanted {
        resource: wanted.resource_type_filter,
        name: wanted.resource_name_filter,
        pattern: wanted.pattern_type_filter,
        principal: wanted.principal_filter,
        host: wanted.host_filter,
        operation: wanted.operation,
        permission: wanted.permission_type,
    })?;
    let Some(filter) = filter else {
        return Ok(Vec::new());
    };
    let deleted = call.session.security().delete_acls(&filter);
    let deleted = deleted.map_err(refused)?.into_iter();
    Ok(deleted
        .map(|acl| DeleteAclsMatchingAcl {
            error_code: NONE,
            error_message: None,
            resource_type: acl.pattern.resource.number(),
            resource_name: acl.pattern.name,
            pattern_type: acl.pattern.kind.number(),
            principal: acl.principal.to_string(),
            host: acl.host,
            operation: acl.operation.number(),
            permission_type: acl.permission.number(),
        })
        .collect())
}

/// A filter as both requests carry it.
struct Wanted {
    resource: i8,
    name: Option<String>,
    pattern: i8,
    principal: Option<String>,
    host: Option<String>,
    operation: i8,
    permission: i8,
}

/// `None`: the filter matches nothing, because it names a principal as no rule can (`*`, as kafka-python asks).
fn filter(wanted: Wanted) -> Result<Option<AclFilter>, BrokerError> {
    fn unless_any<T>(number: i8, of: impl Fn(i8) -> Option<T>) -> Result<Option<T>, BrokerError> {
        match number {
            ANY => Ok(None),
            number => known(of(number)).map(Some),
        }
    }
    let name_filter = match wanted.pattern {
        ANY => NameFilter::Any,
        MATCH => NameFilter::Match,
        number => NameFilter::Pattern(known(PatternKind::from_number(number))?),
    };
    let principal = match wanted.principal.map(|principal| principal.parse()) {
        None => None,
        Some(Ok(principal)) => Some(principal),
        Some(Err(_)) => return Ok(None),
    };
    Ok(Some(AclFilter {
        resource: unless_any(wanted.resource, ResourceKind::from_number)?,
        name: wanted.name,
        name_filter,
        principal,
        host: wanted.host,
        operation: unless_any(wanted.operation, Operation::from_number)?,
        permission: unless_any(wanted.permission, Permission::from_number)?,
    }))
}

fn known<T>(value: Option<T>) -> Result<T, BrokerError> {
    value.ok_or_else(|| {
        let message = "a rule names a kind of resource, pattern, operation or permission that is not known here";
        BrokerError::new(ErrorCode::InvalidRequest, message)
    })
}

/// An error of the users and rules as Kafka's.
pub(super) fn refused(error: ServerError) -> BrokerError {
    match error {
        ServerError::Broker(error) => error,
        ServerError::Invalid { what } => BrokerError::new(ErrorCode::InvalidRequest, what),
        other => BrokerError::new(ErrorCode::KafkaStorageError, other.to_string()),
    }
}
