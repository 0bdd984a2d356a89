//! DescribeUserScramCredentials, AlterUserScramCredentials.

use std::collections::BTreeMap;

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::acls::refused;
use super::{NONE, broker_code, message};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::sasl::{
    ITERATIONS_MAX, ITERATIONS_MIN, ScramCredential, ScramHash, check_user_name,
};
use crate::protocol::wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use crate::protocol::wire::messages::describe_user_scram_credentials::{
    CredentialInfo, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
};

/// The longest salt that is taken, in bytes.
const SALT_BYTES_MAX: usize = 256;

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let allowed = call.allow_cluster(Operation::Describe);
    let mut response = DescribeUserScramCredentialsResponse {
        error_code: broker_code(&allowed),
        error_message: message(&allowed),
        ..DescribeUserScramCredentialsResponse::default()
    };
    if allowed.is_err() {
        return response;
    }
    let mut users: BTreeMap<String, Vec<CredentialInfo>> = BTreeMap::new();
    for credential in call.session.security().users() {
        let infos = users.entry(credential.user).or_default();
        infos.push(CredentialInfo {
            mechanism: number(credential.hash),
            iterations: i32::try_from(credential.iterations).unwrap_or(i32::MAX),
        });
    }
    let named = request.users.filter(|users| !users.is_empty());
    let wanted = match named {
        None => users.keys().cloned().collect(),
        Some(wanted) => wanted.into_iter().map(|user| user.name).collect::<Vec<_>>(),
    };
    response.results = wanted
        .into_iter()
        .map(|user| {
            let infos = users.get(&user).cloned();
            DescribeUserScramCredentialsResult {
                error_code: match infos {
                    Some(_) => NONE,
                    None => ErrorCode::ResourceNotFound.code(),
                },
                error_message: None,
                credential_infos: infos.unwrap_or_default(),
                user,
            }
        })
        .collect();
    response
}

pub(in crate::server) fn alter(
    call: &Call<'_>,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    // A user has one result, whatever was asked for it: the first error, if there was one.
    let mut results: BTreeMap<String, Result<(), BrokerError>> = BTreeMap::new();
    let mut note = |user: String, result: Result<(), BrokerError>| {
        let noted = results.entry(user).or_insert(Ok(()));
        if noted.is_ok() {
            *noted = result;
        }
    };
    for deletion in request.deletions {
        let result = delete(call, &deletion);
        note(deletion.name, result);
    }
    for upsertion in request.upsertions {
        let result = set(call, &upsertion);
        note(upsertion.name, result);
    }
    let results = results
        .into_iter()
        .map(|(user, result)| AlterUserScramCredentialsResult {
            user,
            error_code: broker_code(&result),
            error_message: message(&result),
        });
    AlterUserScramCredentialsResponse {
        results: results.collect(),
        ..AlterUserScramCredentialsResponse::default()
    }
}

fn delete(call: &Call<'_>, deletion: &ScramCredentialDeletion) -> Result<(), BrokerError> {
    call.allow_cluster(Operation::Alter)?;
    let hash = hash(deletion.mechanism)?;
    let security = call.session.security();
    let deleted = security.delete_credential(&deletion.name, Some(hash));
    match deleted.map_err(refused)? {
        true => Ok(()),
        false => Err(ErrorCode::ResourceNotFound.into()),
    }
}

fn set(call: &Call<'_>, upsertion: &ScramCredentialUpsertion) -> Result<(), BrokerError> {
    call.allow_cluster(Operation::Alter)?;
    let hash = hash(upsertion.mechanism)?;
    let unacceptable = |why: String| BrokerError::new(ErrorCode::UnacceptableCredential, why);
    check_user_name(&upsertion.name).map_err(|error| unacceptable(error.to_string()))?;
    let iterations = u32::try_from(upsertion.iterations).unwrap_or(0);
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        let why = format!("iterations must be between {ITERATIONS_MIN} and {ITERATIONS_MAX}");
        return Err(unacceptable(why));
    }
    let salt = upsertion.salt.to_vec();
    let is_sized = upsertion.salted_password.len() == hash.digest_bytes();
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX || !is_sized {
        let why = "the salt or the salted password has a size that does not fit the mechanism";
        return Err(unacceptable(why.to_owned()));
    }
    let salted = &upsertion.salted_password;
    let credential = ScramCredential::of_salted(hash, salted, salt, iterations);
    let security = call.session.security();
    let set = security.set_credentials(&[(upsertion.name.clone(), credential)]);
    set.map_err(refused)
}

/// Kafka's number of a SCRAM mechanism.
fn number(hash: ScramHash) -> i8 {
    match hash {
        ScramHash::Sha256 => 1,
        ScramHash::Sha512 => 2,
    }
}

fn hash(number: i8) -> Result<ScramHash, BrokerError> {
    match number {
        1 => Ok(ScramHash::Sha256),
        2 => Ok(ScramHash::Sha512),
        _ => Err(ErrorCode::UnsupportedSaslMechanism.into()),
    }
}
