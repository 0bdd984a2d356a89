//! `Rules`: access rules, and the decision that they make. Pure.
//!
//! Kafka's meaning: what no rule allows is denied; a rule that denies beats all that allow; super users may do everything.
//! Who may read, write, delete or alter a thing may describe it; who may alter its settings may describe them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::principal::Principal;

/// Stands for every user in a principal, every host, and every name in a literal pattern.
pub(super) const ANY: &str = "*";

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $(#[$variant_doc:meta] $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(i8)]
        pub enum $name { $(#[$variant_doc] $variant = $number,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Kafka's number on the wire.
            #[must_use]
            pub fn number(self) -> i8 {
                self as i8
            }

            /// The one with Kafka's number.
            #[must_use]
            pub fn from_number(number: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.number() == number)
            }

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one of that name, in upper or lower case.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

numbered! {
    /// Operation of a request or rule.
    Operation {
        /// Everything (in rules only).
        All = 2, "all";
        /// Read records; join a group and commit its positions.
        Read = 3, "read";
        /// Write records; hold a transactional id.
        Write = 4, "write";
        /// Create topics.
        Create = 5, "create";
        /// Delete topics, groups, records.
        Delete = 6, "delete";
        /// Add partitions; change users and rules.
        Alter = 7, "alter";
        /// See that it is there, and its state.
        Describe = 8, "describe";
        /// The brokers' own operations.
        ClusterAction = 9, "cluster-action";
        /// See settings.
        DescribeConfigs = 10, "describe-configs";
        /// Change settings.
        AlterConfigs = 11, "alter-configs";
        /// Take a producer id (whoever may write to some topic may do this as well).
        IdempotentWrite = 12, "idempotent-write";
    }
}

impl Operation {
    /// Lists the operations on a kind.
    #[must_use]
    pub fn on(kind: ResourceKind) -> &'static [Self] {
        use Operation::*;
        match kind {
            ResourceKind::Topic => &[
                Read,
                Write,
                Create,
                Delete,
                Alter,
                Describe,
                DescribeConfigs,
                AlterConfigs,
            ],
            ResourceKind::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            ResourceKind::Cluster => &[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ],
            ResourceKind::TransactionalId => &[Write, Describe],
        }
    }
}

numbered! {
    /// Subject of a rule.
    ResourceKind {
        /// A topic.
        Topic = 2, "topic";
        /// A group.
        Group = 3, "group";
        /// The broker as a whole.
        Cluster = 4, "cluster";
        /// A transactional id.
        TransactionalId = 5, "transactional-id";
    }
}

numbered! {
    /// Comparison of a rule's name.
    PatternKind {
        /// As it is; `*` stands for every name.
        Literal = 3, "literal";
        /// Names that begin so.
        Prefixed = 4, "prefixed";
    }
}

numbered! {
    /// Verdict of a rule.
    Permission {
        /// No, whatever other rules say.
        Deny = 2, "deny";
        /// Yes, unless another rule denies.
        Allow = 3, "allow";
    }
}

/// The name under which the cluster stands in rules.
pub(super) const CLUSTER: &str = "kafka-cluster";

/// A thing that somebody wants to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a str),
    /// A group.
    Group(&'a str),
    /// The broker as a whole.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
}

impl<'a> Resource<'a> {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(self) -> ResourceKind {
        match self {
            Self::Topic(_) => ResourceKind::Topic,
            Self::Group(_) => ResourceKind::Group,
            Self::Cluster => ResourceKind::Cluster,
            Self::TransactionalId(_) => ResourceKind::TransactionalId,
        }
    }

    /// Its name; the cluster is `kafka-cluster`.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Topic(name) | Self::Group(name) | Self::TransactionalId(name) => name,
            Self::Cluster => CLUSTER,
        }
    }
}

/// Which things a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Of which kind they are.
    pub resource: ResourceKind,
    /// Comparison of `name`.
    pub kind: PatternKind,
    /// A name or its beginning.
    pub name: String,
}

impl Pattern {
    /// Whether a thing is one of those.
    #[must_use]
    pub fn matches(&self, resource: ResourceKind, name: &str) -> bool {
        self.resource == resource
            && match self.kind {
                PatternKind::Literal => self.name == ANY || self.name == name,
                PatternKind::Prefixed => name.starts_with(&self.name),
            }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// Its subject.
    pub pattern: Pattern,
    /// Whom it is about; `User:*` is everybody.
    pub principal: Principal,
    /// From where: an IP address, or `*`.
    pub host: String,
    /// Which operation.
    pub operation: Operation,
    /// Yes or no.
    pub permission: Permission,
}

impl Acl {
    fn concerns(&self, who: &Principal, from: IpAddr) -> bool {
        let is_them = self.principal == *who || self.principal.name() == ANY;
        is_them && (self.host == ANY || self.host.parse() == Ok(from))
    }

    /// Whether the rule's permission covers `operation`. Only permissions imply others; a denial is meant as it is said.
    fn covers(&self, operation: Operation) -> bool {
        let implied = match self.permission {
            Permission::Deny => false,
            Permission::Allow => matches!(
                (self.operation, operation),
                (
                    Operation::Read | Operation::Write | Operation::Delete | Operation::Alter,
                    Operation::Describe
                ) | (Operation::AlterConfigs, Operation::DescribeConfigs)
            ),
        };
        self.operation == Operation::All || self.operation == operation || implied
    }
}

/// Verdict of the rules on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allowed,
    /// No.
    Denied,
}

/// All rules in force.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whether rules are asked at all; otherwise everything is allowed.
    pub is_enforced: bool,
    /// Who may do everything.
    pub super_users: Vec<Principal>,
    /// The rules.
    pub acls: Vec<Acl>,
}

impl Rules {
    /// Whether `who`, connected from `from`, may do `operation` on `resource`.
    #[must_use]
    pub fn authorize(
        &self,
        who: &Principal,
        from: IpAddr,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Decision {
        self.decide(who, from, operation, |pattern| {
            pattern.matches(resource.kind(), resource.name())
        })
    }

    /// Whether nothing is ever refused to `who`.
    #[must_use]
    pub fn is_unlimited(&self, who: &Principal) -> bool {
        !self.is_enforced || self.super_users.contains(who)
    }

    /// Whether `who` may do `operation` on some thing of `kind`: at least one rule allows it, and none denies it for all.
    #[must_use]
    pub fn authorize_any(
        &self,
        who: &Principal,
        from: IpAddr,
        operation: Operation,
        kind: ResourceKind,
    ) -> Decision {
        let covers_all = |pattern: &Pattern| {
            pattern.resource == kind
                && ((pattern.kind == PatternKind::Literal && pattern.name == ANY)
                    || (pattern.kind == PatternKind::Prefixed && pattern.name.is_empty()))
        };
        let relevant = |acl: &&Acl| acl.concerns(who, from) && acl.covers(operation);
        let is_denied = self
            .acls
            .iter()
            .filter(relevant)
            .any(|acl| acl.permission == Permission::Deny && covers_all(&acl.pattern));
        match is_denied && self.is_enforced && !self.super_users.contains(who) {
            true => Decision::Denied,
            false => self.decide_allowing(who, from, operation, |pattern| pattern.resource == kind),
        }
    }

    fn decide(
        &self,
        who: &Principal,
        from: IpAddr,
        operation: Operation,
        is_about: impl Fn(&Pattern) -> bool,
    ) -> Decision {
        if !self.is_enforced || self.super_users.contains(who) {
            return Decision::Allowed;
        }
        let is_denied = self.acls.iter().any(|acl| {
            acl.permission == Permission::Deny
                && is_about(&acl.pattern)
                && acl.concerns(who, from)
                && acl.covers(operation)
        });
        match is_denied {
            true => Decision::Denied,
            false => self.decide_allowing(who, from, operation, is_about),
        }
    }

    fn decide_allowing(
        &self,
        who: &Principal,
        from: IpAddr,
        operation: Operation,
        is_about: impl Fn(&Pattern) -> bool,
    ) -> Decision {
        let is_allowed = !self.is_enforced
            || self.super_users.contains(who)
            || self.acls.iter().any(|acl| {
                acl.permission == Permission::Allow
                    && is_about(&acl.pattern)
                    && acl.concerns(who, from)
                    && acl.covers(operation)
            });
        match is_allowed {
            true => Decision::Allowed,
            false => Decision::Denied,
        }
    }
}
