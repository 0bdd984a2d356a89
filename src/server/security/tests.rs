//! The decision of rules against a model, and users and rules that survive in their file.

use std::path::Path;
use std::slice;

use proptest::prelude::*;

use super::*;
use crate::env::Env;
use crate::env::simulated::SimulatedWorld;
use crate::protocol::sasl::{Credentials as _, ITERATIONS_MIN, ScramCredential, ScramHash};

fn acl(principal: &str, operation: Operation, permission: Permission, pattern: Pattern) -> Acl {
    Acl {
        pattern,
        principal: principal.parse().unwrap(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

fn topic(kind: PatternKind, name: &str) -> Pattern {
    Pattern {
        resource: ResourceKind::Topic,
        kind,
        name: name.to_owned(),
    }
}

fn rules(acls: Vec<Acl>) -> Rules {
    Rules {
        is_enforced: true,
        super_users: vec![Principal::user("root")],
        acls,
    }
}

fn may(rules: &Rules, who: &str, operation: Operation, resource: Resource<'_>) -> bool {
    let from = "10.0.0.1".parse().unwrap();
    rules.authorize(&Principal::user(who), from, operation, resource) == Decision::Allowed
}

#[test]
fn what_no_rule_allows_is_denied_except_to_super_users() {
    let rules = rules(Vec::new());
    for operation in Operation::ALL {
        for resource in [
            Resource::Topic("t"),
            Resource::Group("g"),
            Resource::Cluster,
            Resource::TransactionalId("x"),
        ] {
            assert!(!may(&rules, "alice", *operation, resource));
            assert!(may(&rules, "root", *operation, resource));
        }
    }
    assert!(may(
        &Rules::default(),
        "alice",
        Operation::Write,
        Resource::Cluster
    ));
}

#[test]
fn a_denial_beats_every_permission() {
    let rules = rules(vec![
        acl(
            "User:*",
            Operation::All,
            Permission::Allow,
            topic(PatternKind::Literal, "*"),
        ),
        acl(
            "User:mallory",
            Operation::Read,
            Permission::Deny,
            topic(PatternKind::Prefixed, "secret-"),
        ),
    ]);
    assert!(may(
        &rules,
        "mallory",
        Operation::Read,
        Resource::Topic("open")
    ));
    assert!(!may(
        &rules,
        "mallory",
        Operation::Read,
        Resource::Topic("secret-plan")
    ));
    assert!(may(
        &rules,
        "mallory",
        Operation::Write,
        Resource::Topic("secret-plan")
    ));
    assert!(may(
        &rules,
        "alice",
        Operation::Read,
        Resource::Topic("secret-plan")
    ));
    assert!(!may(
        &rules,
        "alice",
        Operation::Read,
        Resource::Group("open")
    ));
}

#[test]
fn who_may_use_a_thing_may_describe_it_but_a_denied_use_denies_no_more_than_it_says() {
    let allowed = rules(vec![
        acl(
            "User:alice",
            Operation::Read,
            Permission::Allow,
            topic(PatternKind::Literal, "t"),
        ),
        acl(
            "User:alice",
            Operation::AlterConfigs,
            Permission::Allow,
            topic(PatternKind::Literal, "t"),
        ),
    ]);
    assert!(may(
        &allowed,
        "alice",
        Operation::Describe,
        Resource::Topic("t")
    ));
    assert!(may(
        &allowed,
        "alice",
        Operation::DescribeConfigs,
        Resource::Topic("t")
    ));
    assert!(!may(
        &allowed,
        "alice",
        Operation::Write,
        Resource::Topic("t")
    ));
    let mut acls = allowed.acls;
    acls.push(acl(
        "User:alice",
        Operation::Write,
        Permission::Deny,
        topic(PatternKind::Literal, "t"),
    ));
    assert!(may(
        &rules(acls),
        "alice",
        Operation::Describe,
        Resource::Topic("t")
    ));
}

#[test]
fn a_rule_for_one_address_counts_for_no_other() {
    let mut from_one = acl(
        "User:alice",
        Operation::Read,
        Permission::Allow,
        topic(PatternKind::Literal, "t"),
    );
    from_one.host = "10.0.0.1".to_owned();
    let rules = rules(vec![from_one]);
    let alice = Principal::user("alice");
    let from = |address: &str| {
        rules.authorize(
            &alice,
            address.parse().unwrap(),
            Operation::Read,
            Resource::Topic("t"),
        )
    };
    assert_eq!(from("10.0.0.1"), Decision::Allowed);
    assert_eq!(from("10.0.0.2"), Decision::Denied);
}

fn an_acl() -> impl Strategy<Value = Acl> {
    let name = prop::sample::select(vec!["*", "a", "ab", "abc", "b"]);
    (
        name,
        prop::sample::select(PatternKind::ALL),
        prop::sample::select(vec!["User:alice", "User:bob", "User:*"]),
        prop::sample::select(Operation::ALL),
        prop::sample::select(Permission::ALL),
    )
        .prop_map(|(name, kind, principal, operation, permission)| {
            acl(principal, operation, permission, topic(kind, name))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The model says the same in fewer words: a denial that applies wins, else a permission that applies.
    #[test]
    fn decisions_are_those_of_the_model(
        acls in prop::collection::vec(an_acl(), 0..6),
        name in prop::sample::select(vec!["a", "ab", "abc", "b", "c"]),
        operation in prop::sample::select(Operation::ALL),
    ) {
        let applies = |acl: &&Acl| {
            let named = match acl.pattern.kind {
                PatternKind::Literal => ["*", name].contains(&acl.pattern.name.as_str()),
                PatternKind::Prefixed => name.starts_with(&acl.pattern.name),
            };
            named && ["alice", "*"].contains(&acl.principal.name())
        };
        let says = |permission, implied: &[Operation]| acls.iter().filter(applies).any(|acl| {
            acl.permission == permission
                && (acl.operation == Operation::All || acl.operation == operation || implied.contains(&acl.operation))
        });
        let implied: &[Operation] = match operation {
            Operation::Describe => &[Operation::Read, Operation::Write, Operation::Delete, Operation::Alter],
            Operation::DescribeConfigs => &[Operation::AlterConfigs],
            _ => &[],
        };
        let expected = !says(Permission::Deny, &[]) && says(Permission::Allow, implied);
        prop_assert_eq!(may(&rules(acls.clone()), "alice", operation, Resource::Topic(name)), expected);
    }
}

fn open(env: &Env) -> Security {
    Security::open(env, Path::new("/data"), true, Vec::new()).unwrap()
}

fn world() -> SimulatedWorld {
    let world = SimulatedWorld::new(1);
    world.env().files.create_dir(Path::new("/data")).unwrap();
    world
}

fn credential(env: &Env, hash: ScramHash) -> ScramCredential {
    ScramCredential::new(hash, &"secret".into(), ITERATIONS_MIN, &*env.random).unwrap()
}

#[test]
fn users_and_rules_survive_and_another_process_sees_them() {
    let env = world().env();
    let (writer, reader) = (open(&env), open(&env));
    let rule = acl(
        "User:alice",
        Operation::Read,
        Permission::Allow,
        topic(PatternKind::Literal, "t"),
    );
    let alice = credential(&env, ScramHash::Sha256);
    writer
        .set_credentials(&[("alice".to_owned(), alice.clone())])
        .unwrap();
    writer.create_acls(&[rule.clone(), rule.clone()]).unwrap();
    assert!(reader.users().is_empty());
    reader.refresh().unwrap();
    for security in [&writer, &reader, &open(&env)] {
        let found = security.snapshot().credential("alice", ScramHash::Sha256);
        assert_eq!(found, Some(alice.clone()));
        assert!(
            security
                .snapshot()
                .credential("alice", ScramHash::Sha512)
                .is_none()
        );
        assert_eq!(security.acls(&AclFilter::default()), slice::from_ref(&rule));
    }
    // What another process has written is not overwritten by what was known before.
    reader
        .set_credentials(&[("bob".to_owned(), credential(&env, ScramHash::Sha512))])
        .unwrap();
    let names = |security: &Security| -> Vec<String> {
        security.users().into_iter().map(|user| user.user).collect()
    };
    assert_eq!(names(&open(&env)), ["alice", "bob"]);
    assert!(
        reader
            .delete_credential("alice", Some(ScramHash::Sha256))
            .unwrap()
    );
    assert!(!reader.delete_credential("alice", None).unwrap());
    assert!(reader.delete_credential("bob", None).unwrap());
    assert!(names(&open(&env)).is_empty());
    assert_eq!(reader.delete_acls(&AclFilter::default()).unwrap(), [rule]);
    assert!(open(&env).acls(&AclFilter::default()).is_empty());
}

#[test]
fn a_filter_means_the_rules_that_agree_with_it() {
    let env = world().env();
    let security = open(&env);
    let literal = acl(
        "User:alice",
        Operation::Read,
        Permission::Allow,
        topic(PatternKind::Literal, "orders"),
    );
    let prefixed = acl(
        "User:bob",
        Operation::Write,
        Permission::Deny,
        topic(PatternKind::Prefixed, "ord"),
    );
    let any = acl(
        "User:*",
        Operation::All,
        Permission::Allow,
        topic(PatternKind::Literal, "*"),
    );
    let all = [literal.clone(), prefixed.clone(), any.clone()];
    security.create_acls(&all).unwrap();
    let found = |filter: AclFilter| security.acls(&filter);
    let named = |name: &str, name_filter| AclFilter {
        name: Some(name.to_owned()),
        name_filter,
        ..AclFilter::default()
    };
    assert_eq!(found(AclFilter::default()).len(), 3);
    assert_eq!(
        found(named("orders", NameFilter::Any)),
        slice::from_ref(&literal)
    );
    let literals = NameFilter::Pattern(PatternKind::Literal);
    assert_eq!(found(named("ord", literals)), []);
    let prefixes = NameFilter::Pattern(PatternKind::Prefixed);
    assert_eq!(found(named("ord", prefixes)), slice::from_ref(&prefixed));
    assert_eq!(found(named("orders", NameFilter::Match)).len(), 3);
    assert_eq!(found(named("other", NameFilter::Match)), [any]);
    let denials = AclFilter {
        permission: Some(Permission::Deny),
        ..AclFilter::default()
    };
    assert_eq!(found(denials), [prefixed]);
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let env = world().env();
    let security = open(&env);
    let good = acl(
        "User:alice",
        Operation::Read,
        Permission::Allow,
        topic(PatternKind::Literal, "t"),
    );
    let mut unnamed = good.clone();
    unnamed.pattern.name = String::new();
    let mut elsewhere = good.clone();
    elsewhere.host = "example.org".to_owned();
    let mut cluster = good.clone();
    cluster.pattern.resource = ResourceKind::Cluster;
    for bad in [unnamed, elsewhere, cluster] {
        assert!(security.create_acls(&[good.clone(), bad]).is_err());
    }
    assert!(
        security.acls(&AclFilter::default()).is_empty(),
        "all or none"
    );
    assert!("alice".parse::<Principal>().is_err());
    assert!("User:".parse::<Principal>().is_err());
    assert!("User:a\nb".parse::<Principal>().is_err());
}

#[test]
fn kafkas_numbers_and_our_names_go_both_ways() {
    for operation in Operation::ALL {
        assert_eq!(Operation::from_number(operation.number()), Some(*operation));
        assert_eq!(
            Operation::from_name(&operation.name().to_uppercase()),
            Some(*operation)
        );
    }
    assert_eq!(Operation::from_number(1), None);
    assert_eq!(ResourceKind::TransactionalId.number(), 5);
    assert_eq!(PatternKind::Prefixed.number(), 4);
    assert_eq!(Permission::Allow.number(), 3);
}
