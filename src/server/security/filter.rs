//! `AclFilter`: which rules a request to list or delete them means.

use super::principal::Principal;
use super::rules::{ANY, Acl, Operation, PatternKind, Permission, ResourceKind};

/// Way to compare a filter's name with the patterns of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameFilter {
    /// Rules with this very pattern, of whatever kind.
    #[default]
    Any,
    /// Rules with this very pattern, of this kind.
    Pattern(PatternKind),
    /// Rules that would be asked about a thing of this name.
    Match,
}

/// Which rules are meant: those that agree in all that is given.
#[derive(Debug, Clone, Default)]
pub struct AclFilter {
    /// Kind of thing.
    pub resource: Option<ResourceKind>,
    /// Name of the pattern, or of the thing.
    pub name: Option<String>,
    /// Meaning of `name`.
    pub name_filter: NameFilter,
    /// Whom they are about.
    pub principal: Option<Principal>,
    /// From where.
    pub host: Option<String>,
    /// Which operation.
    pub operation: Option<Operation>,
    /// Yes or no.
    pub permission: Option<Permission>,
}

impl AclFilter {
    /// Whether `acl` is one of those meant.
    #[must_use]
    pub fn matches(&self, acl: &Acl) -> bool {
        fn agrees<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        agrees(self.resource.as_ref(), &acl.pattern.resource)
            && self.matches_name(acl)
            && agrees(self.principal.as_ref(), &acl.principal)
            && agrees(self.host.as_ref(), &acl.host)
            && agrees(self.operation.as_ref(), &acl.operation)
            && agrees(self.permission.as_ref(), &acl.permission)
    }

    fn matches_name(&self, acl: &Acl) -> bool {
        let pattern = &acl.pattern;
        let is_kind = match self.name_filter {
            NameFilter::Pattern(kind) => pattern.kind == kind,
            NameFilter::Any | NameFilter::Match => true,
        };
        let Some(name) = &self.name else {
            return is_kind;
        };
        match self.name_filter {
            NameFilter::Match => {
                pattern.matches(pattern.resource, name)
                    || (pattern.kind == PatternKind::Literal && pattern.name == ANY)
            }
            NameFilter::Any | NameFilter::Pattern(_) => is_kind && pattern.name == *name,
        }
    }
}
