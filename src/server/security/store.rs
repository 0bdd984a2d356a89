//! `Security`: users and rules in `security.json`, and a snapshot of them for requests.
//!
//! ```text
//! content = { "secret": base64,
//!             "users": { "alice": { "SCRAM-SHA-256": { "salt": base64, "iterations": 8192,
//!                                                      "stored_key": base64, "server_key": base64 } } },
//!             "acls": [ { "pattern": { "resource": "topic", "kind": "literal", "name": "orders" },
//!                         "principal": "User:alice", "host": "*", "operation": "read", "permission": "allow" } ] }
//! ```
//! in a sealed document of version 1 (`docs/format.md`). Passwords are not in it, nor can one log in with what is,
//! but who has it can pretend to be this broker: it is made with mode 0600.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::filter::AclFilter;
use super::principal::Principal;
use super::rules::{Acl, CLUSTER, ResourceKind, Rules};
use crate::broker::sealed;
use crate::env::{Env, Lock, LockError};
use crate::protocol::sasl::{Credentials, Mechanism, ScramCredential, ScramHash};
use crate::server::ServerError;

const FILE: &str = "security.json";
const LOCK: &str = "security.lock";
/// Longest wait of a change for another process that is changing the file.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Users that can be kept. A table in memory, asked at each login.
const USERS_MAX: usize = 100_000;
/// Rules that can be kept. Each request walks through them.
const ACLS_MAX: usize = 10_000;
/// The secret that unknown users' salts come from, in 64-bit words.
const SECRET_WORDS: usize = 4;

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    secret: String,
    users: BTreeMap<String, BTreeMap<String, StoredCredential>>,
    acls: Vec<Acl>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCredential {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

/// A user's credential as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCredential {
    /// The user.
    pub user: String,
    /// For which mechanism.
    pub hash: ScramHash,
    /// Hashings of the password.
    pub iterations: u32,
}

/// Users and rules of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Security {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    data_dir: PathBuf,
    rules_wanted: (bool, Vec<Principal>),
    current: RwLock<Arc<Snapshot>>,
    /// One change at a time in this process; the file's lock keeps others out.
    changing: Mutex<()>,
}

/// State behind access checks.
pub(in crate::server) struct Snapshot {
    content: Content,
    secret: Vec<u8>,
    pub(in crate::server) rules: Rules,
}

impl Security {
    /// Reads users and rules of the data directory. Rules are enforced if `is_enforced`; `super_users` stand above them.
    ///
    /// # Errors
    /// If the file cannot be read, is of a newer version, or is damaged.
    pub fn open(
        env: &Env,
        data_dir: &Path,
        is_enforced: bool,
        super_users: Vec<Principal>,
    ) -> Result<Self, ServerError> {
        let rules_wanted = (is_enforced, super_users);
        let content = sealed::read::<Content>(&*env.files, &data_dir.join(FILE))?;
        let mut content = content.unwrap_or_default();
        if content.secret.is_empty() {
            // Until the first user is made, this one serves: it only has to be unknown and stay the same.
            content.secret = new_secret(env);
        }
        let snapshot = Snapshot::new(content, &rules_wanted)?;
        Ok(Self {
            inner: Arc::new(Inner {
                env: env.clone(),
                data_dir: data_dir.to_owned(),
                rules_wanted,
                current: RwLock::new(Arc::new(snapshot)),
                changing: Mutex::new(()),
            }),
        })
    }

    /// Reads the file again: another process may have changed it.
    ///
    /// # Errors
    /// As [`Security::open`]; then what was known stays in force.
    pub fn refresh(&self) -> Result<(), ServerError> {
        let _one = self.inner.changing.lock();
        if let Some(content) = self.read()?
            && content != self.snapshot().content
        {
            self.install(content)?;
        }
        Ok(())
    }

    pub(in crate::server) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.current.read())
    }

    /// All users' credentials, by name.
    #[must_use]
    pub fn users(&self) -> Vec<UserCredential> {
        let snapshot = self.snapshot();
        let users = snapshot.content.users.iter();
        users
            .flat_map(|(user, credentials)| {
                credentials.iter().filter_map(|(mechanism, stored)| {
                    Some(UserCredential {
                        user: user.clone(),
                        hash: hash_of(mechanism)?,
                        iterations: stored.iterations,
                    })
                })
            })
            .collect()
    }

    /// Sets users' credentials, all or none; a credential that is there is replaced.
    ///
    /// # Errors
    /// If there would be too many users, or the file cannot be written.
    pub fn set_credentials(
        &self,
        credentials: &[(String, ScramCredential)],
    ) -> Result<(), ServerError> {
        self.change(|content| {
            for (user, credential) in credentials {
                let known = content.users.entry(user.clone()).or_default();
                let mechanism = Mechanism::Scram(credential.hash).name().to_owned();
                known.insert(mechanism, StoredCredential::from(credential));
            }
            match content.users.len() {
                0..=USERS_MAX => Ok(()),
                _ => Err(invalid(format!(
                    "there would be more than {USERS_MAX} users"
                ))),
            }
        })
    }

    /// Removes a user's credential for `hash`, or all of them. Returns whether there was one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete_credential(
        &self,
        user: &str,
        hash: Option<ScramHash>,
    ) -> Result<bool, ServerError> {
        self.change(|content| {
            let Some(known) = content.users.get_mut(user) else {
                return Ok(false);
            };
            let before = known.len();
            known.retain(|mechanism, _| hash.is_some_and(|hash| hash_of(mechanism) != Some(hash)));
            let is_changed = known.len() != before;
            if known.is_empty() {
                content.users.remove(user);
            }
            Ok(is_changed)
        })
    }

    /// The rules that `filter` means.
    #[must_use]
    pub fn acls(&self, filter: &AclFilter) -> Vec<Acl> {
        let snapshot = self.snapshot();
        let acls = snapshot.rules.acls.iter();
        acls.filter(|acl| filter.matches(acl)).cloned().collect()
    }

    /// Adds rules, all or none. One that is there already stays once.
    ///
    /// # Errors
    /// If a rule is not valid, there would be too many, or the file cannot be written.
    pub fn create_acls(&self, acls: &[Acl]) -> Result<(), ServerError> {
        for acl in acls {
            check(acl)?;
        }
        self.change(|content| {
            content.acls.extend_from_slice(acls);
            content.acls.sort();
            content.acls.dedup();
            match content.acls.len() {
                0..=ACLS_MAX => Ok(()),
                _ => Err(invalid(format!(
                    "there would be more than {ACLS_MAX} rules"
                ))),
            }
        })
    }

    /// Deletes the rules that `filter` means, and returns them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>, ServerError> {
        self.change(|content| {
            let deleted = content.acls.extract_if(.., |acl| filter.matches(acl));
            Ok(deleted.collect())
        })
    }

    /// Changes the file under its lock, then the snapshot: nobody acts on what is not durable.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let inner = &*self.inner;
        let _one = inner.changing.lock();
        let _others = self.lock()?;
        let current = || self.snapshot().content.clone();
        let mut content = self.read()?.unwrap_or_else(current);
        let result = change(&mut content)?;
        let path = inner.data_dir.join(FILE);
        sealed::write(&*inner.env.files, &path, &content)?;
        self.install(content)?;
        Ok(result)
    }

    fn read(&self) -> Result<Option<Content>, ServerError> {
        let path = self.inner.data_dir.join(FILE);
        Ok(sealed::read(&*self.inner.env.files, &path)?)
    }

    fn install(&self, content: Content) -> Result<(), ServerError> {
        let snapshot = Snapshot::new(content, &self.inner.rules_wanted)?;
        *self.inner.current.write() = Arc::new(snapshot);
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn Lock>, ServerError> {
        let env = &self.inner.env;
        let path = self.inner.data_dir.join(LOCK);
        let deadline = env.clock.now().plus(LOCK_PATIENCE);
        loop {
            match env.files.lock(&path) {
                Ok(lock) => return Ok(lock),
                Err(LockError::Held { .. }) if env.clock.now() < deadline => {
                    env.clock.sleep(LOCK_PAUSE);
                }
                Err(error) => {
                    return Err(ServerError::File {
                        path,
                        source: match error {
                            LockError::Io(source) => source,
                            held => std::io::Error::other(held),
                        },
                    });
                }
            }
        }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Security")
    }
}

impl Snapshot {
    fn new(content: Content, wanted: &(bool, Vec<Principal>)) -> Result<Self, ServerError> {
        let secret = decode(&content.secret)?;
        for acl in &content.acls {
            check(acl)?;
        }
        Ok(Self {
            secret,
            rules: Rules {
                is_enforced: wanted.0,
                super_users: wanted.1.clone(),
                acls: content.acls.clone(),
            },
            content,
        })
    }
}

impl Credentials for Snapshot {
    fn credential(&self, user: &str, hash: ScramHash) -> Option<ScramCredential> {
        let stored = self.content.users.get(user)?;
        let stored = stored.get(Mechanism::Scram(hash).name())?;
        Some(ScramCredential {
            hash,
            salt: decode(&stored.salt).ok()?,
            iterations: stored.iterations,
            stored_key: decode(&stored.stored_key).ok()?,
            server_key: decode(&stored.server_key).ok()?,
        })
    }

    fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl From<&ScramCredential> for StoredCredential {
    fn from(credential: &ScramCredential) -> Self {
        Self {
            salt: BASE64.encode(&credential.salt),
            iterations: credential.iterations,
            stored_key: BASE64.encode(&credential.stored_key),
            server_key: BASE64.encode(&credential.server_key),
        }
    }
}

fn new_secret(env: &Env) -> String {
    let words: Vec<u8> = (0..SECRET_WORDS)
        .flat_map(|_| env.random.next_u64().to_be_bytes())
        .collect();
    BASE64.encode(words)
}

fn hash_of(mechanism: &str) -> Option<ScramHash> {
    match mechanism.parse() {
        Ok(Mechanism::Scram(hash)) => Some(hash),
        _ => None,
    }
}

fn decode(text: &str) -> Result<Vec<u8>, ServerError> {
    BASE64
        .decode(text)
        .map_err(|error| invalid(format!("{FILE} holds a value that is not base64 ({error})")))
}

/// Checks that a rule means what its writer means.
fn check(acl: &Acl) -> Result<(), ServerError> {
    let name = &acl.pattern.name;
    let is_host = acl.host == "*" || acl.host.parse::<std::net::IpAddr>().is_ok();
    let is_cluster = acl.pattern.resource == ResourceKind::Cluster;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(invalid(
            "a rule needs the name of a thing, or `*`".to_owned(),
        ));
    }
    if is_cluster && name != CLUSTER && name != "*" {
        return Err(invalid(format!("the cluster is called {CLUSTER} in rules")));
    }
    match is_host {
        true => Ok(()),
        false => Err(invalid(format!(
            "{:?} is not an IP address or `*`",
            acl.host
        ))),
    }
}

fn invalid(what: String) -> ServerError {
    ServerError::Invalid { what }
}
