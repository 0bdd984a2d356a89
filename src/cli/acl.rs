//! `onceflow acl`: what each user of the broker of a data directory may do, also while it runs.

use std::io::Write;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::{self, Table};
use super::session::{Absent, DataOption};
use super::{UsageError, user};
use crate::env::Env;
use crate::server::security::{
    Acl, AclFilter, NameFilter, Operation, Pattern, PatternKind, Permission, Principal,
    ResourceKind, Security,
};

const EXAMPLES: &str = "\
Examples:
  onceflow acl add --allow User:alice --operation read --topic orders
  onceflow acl add --allow User:alice --operation read --group 'report-*'
  onceflow acl add --allow User:job --operation write --transactional-id 'word-count-*'
  onceflow acl add --deny 'User:*' --operation all --topic secrets
  onceflow acl list
  onceflow acl delete --principal User:alice

A name that ends in * means all names that begin so. Rules count when the broker runs with --acls;
what no rule allows is denied then. A broker that runs knows of a change within a second.
Operations: all read write create delete alter describe cluster-action describe-configs alter-configs idempotent-write.";

/// Work on access rules.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AclArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a rule
    Add {
        #[command(flatten)]
        thing: Thing,
        /// Who may
        #[arg(
            long,
            value_name = "User:NAME",
            required_unless_present = "deny",
            conflicts_with = "deny"
        )]
        allow: Option<Principal>,
        /// Who may not, whatever other rules allow
        #[arg(long, value_name = "User:NAME")]
        deny: Option<Principal>,
        /// Operation; can be given several times
        #[arg(long, required = true, value_parser = operation)]
        operation: Vec<Operation>,
        /// From which address only
        #[arg(long, default_value = "*")]
        host: String,
    },
    /// List all rules
    List,
    /// Delete the rules that agree with all that is given
    Delete {
        #[command(flatten)]
        thing: Thing,
        /// Whom they are about
        #[arg(long, value_name = "User:NAME")]
        principal: Option<Principal>,
        /// Which operation
        #[arg(long, value_parser = operation)]
        operation: Option<Operation>,
    },
}

/// Subject of rules.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Thing {
    /// A topic
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// A group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// A transactional id
    #[arg(long, value_name = "NAME")]
    transactional_id: Option<String>,
    /// The broker as a whole
    #[arg(long)]
    cluster: bool,
}

/// Runs `onceflow acl`.
pub(super) fn run(env: &Env, arguments: AclArguments) -> anyhow::Result<()> {
    let absent = match arguments.action {
        Action::Add { .. } => Absent::Create,
        _ => Absent::Refuse,
    };
    let security = user::open(env, &arguments.data, absent)?;
    match arguments.action {
        Action::Add {
            thing,
            allow,
            deny,
            operation,
            host,
        } => {
            let permission = match allow {
                Some(_) => Permission::Allow,
                None => Permission::Deny,
            };
            let pattern = thing.pattern().ok_or_else(|| {
                UsageError("name a --topic, --group, --transactional-id or --cluster".to_owned())
            })?;
            let principal = allow.or(deny).unwrap_or_else(Principal::anonymous);
            let acls = operation.into_iter().map(|operation| Acl {
                pattern: pattern.clone(),
                principal: principal.clone(),
                host: host.clone(),
                operation,
                permission,
            });
            Ok(security.create_acls(&acls.collect::<Vec<_>>())?)
        }
        Action::List => print(&security.acls(&AclFilter::default())),
        Action::Delete {
            thing,
            principal,
            operation,
        } => delete(&security, &thing, principal, operation),
    }
}

fn delete(
    security: &Security,
    thing: &Thing,
    principal: Option<Principal>,
    operation: Option<Operation>,
) -> anyhow::Result<()> {
    let pattern = thing.pattern();
    if pattern.is_none() && principal.is_none() && operation.is_none() {
        let message = "say which rules: by --principal, --operation or what they are about";
        return Err(UsageError(message.to_owned()).into());
    }
    let name_filter = pattern
        .as_ref()
        .map(|pattern| NameFilter::Pattern(pattern.kind));
    let filter = AclFilter {
        resource: pattern.as_ref().map(|pattern| pattern.resource),
        name: pattern.map(|pattern| pattern.name),
        name_filter: name_filter.unwrap_or_default(),
        principal,
        operation,
        ..AclFilter::default()
    };
    let deleted = security.delete_acls(&filter)?;
    if deleted.is_empty() {
        bail!("no rule agrees with all of that: see `onceflow acl list`");
    }
    print(&deleted)
}

impl Thing {
    fn pattern(&self) -> Option<Pattern> {
        let (resource, name) = match (&self.topic, &self.group, &self.transactional_id) {
            (Some(topic), _, _) => (ResourceKind::Topic, topic.as_str()),
            (_, Some(group), _) => (ResourceKind::Group, group.as_str()),
            (_, _, Some(id)) => (ResourceKind::TransactionalId, id.as_str()),
            _ if self.cluster => (ResourceKind::Cluster, "kafka-cluster"),
            _ => return None,
        };
        let (kind, name) = match name.strip_suffix('*') {
            Some(prefix) if !prefix.is_empty() => (PatternKind::Prefixed, prefix),
            _ => (PatternKind::Literal, name),
        };
        Some(Pattern {
            resource,
            kind,
            name: name.to_owned(),
        })
    }
}

fn operation(name: &str) -> Result<Operation, String> {
    Operation::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Operation::ALL.iter().map(|it| it.name()).collect();
        format!("one of {}", known.join(", "))
    })
}

fn print(acls: &[Acl]) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "permission",
        "principal",
        "operation",
        "about",
        "name",
        "host",
    ]);
    for acl in acls {
        let star = match acl.pattern.kind {
            PatternKind::Prefixed => "*",
            PatternKind::Literal => "",
        };
        table.row([
            acl.permission.name().to_owned(),
            output::printable(&acl.principal.to_string()).into_owned(),
            acl.operation.name().to_owned(),
            acl.pattern.resource.name().to_owned(),
            format!("{}{star}", output::printable(&acl.pattern.name)),
            acl.host.clone(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}
