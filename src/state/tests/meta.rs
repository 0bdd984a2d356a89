//! Answers to a changed job about the state that it finds.

#![allow(clippy::disallowed_methods, reason = "the tests damage real files")]

use super::support::*;
use crate::codec::{CodecId, TypeIdentity};
use crate::protocol::ErrorKind;
use crate::state::{StateConfig, StateError};
use crate::types::TopicId;

/// A home with one committed and flushed value, closed.
fn with_state() -> (Home, Changelog) {
    let home = Home::new();
    let mut changelog = Changelog::default();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    put(&mut store, b"a", "1").unwrap();
    commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
    backend.close().unwrap();
    (home, changelog)
}

fn refusal(home: &Home, config: StateConfig) -> StateError {
    let error = home.open(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    error
}

#[test]
fn another_number_of_state_partitions_is_refused_with_both_numbers() {
    let (home, _) = with_state();
    let error = refusal(
        &home,
        StateConfig {
            state_partitions: 8,
            ..tiny()
        },
    );
    assert!(
        matches!(
            error,
            StateError::StatePartitionsChanged {
                stored: 4,
                asked: 8,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("go back to 4"));
}

#[test]
fn another_codec_is_refused_with_the_store_s_name() {
    let (home, _) = with_state();
    let mut config = tiny();
    config.stores[0].schema.codec = CodecId(3);
    let error = refusal(&home, config);
    assert!(matches!(error, StateError::CodecChanged { .. }), "{error}");
    assert!(error.to_string().contains("\"counts\""));
}

#[test]
fn a_store_that_no_step_owns_any_more_is_refused_until_it_is_dropped_on_purpose() {
    let (home, changelog) = with_state();
    let other = StateConfig {
        stores: vec![declaration("other")],
        ..tiny()
    };
    let error = refusal(&home, other.clone());
    assert!(
        matches!(&error, StateError::StoreMissing { store, .. } if store == STORE),
        "{error}"
    );
    let dropping = StateConfig {
        dropped_stores: vec![STORE.to_owned()],
        ..other
    };
    drop(home.open(dropping).unwrap());
    // The store comes back empty, and is restored.
    let both = StateConfig {
        stores: vec![declaration("other"), declaration(STORE)],
        ..tiny()
    };
    let backend = home.open(both).unwrap();
    assert_eq!(backend.position(STORE, 1), None);
    recover(&backend, &changelog).unwrap();
}

#[test]
fn a_new_store_joins_and_keeps_the_others() {
    let (home, changelog) = with_state();
    let mut config = tiny();
    config.stores.push(declaration("other"));
    config.topology = "changed".to_owned();
    let backend = home.open(config).unwrap();
    assert_eq!(backend.position(STORE, 1), Some(changelog.end(1)));
    assert_eq!(backend.position("other", 1), None);
    assert_eq!(backend.rebuilt(), None);
}

#[test]
fn a_newer_format_is_refused() {
    let (home, _) = with_state();
    std::fs::write(
        home.path().join("meta.json"),
        br#"{ "format": 3, "more": true }"#,
    )
    .unwrap();
    let error = refusal(&home, tiny());
    assert!(
        matches!(
            error,
            StateError::NewerFormat {
                found: 3,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn s6_state_of_another_changelog_is_wiped_and_restored() {
    let (home, changelog) = with_state();
    let mut config = tiny();
    config.stores[0].changelog = TopicId(2);
    let backend = home.open(config).unwrap();
    assert!(backend.rebuilt().is_some_and(|why| why.contains("counts")));
    assert_eq!(backend.position(STORE, 1), None);
    recover(&backend, &changelog).unwrap();
}

#[test]
fn the_format_of_meta_json_stands() {
    let (home, _) = with_state();
    let text = std::fs::read_to_string(home.path().join("meta.json")).unwrap();
    let golden = r#"{
  "format": 2,
  "state_partitions": 4,
  "topology": "",
  "stores": {
    "counts": {
      "codec": 1,
      "key": "raw bytes",
      "value": "str",
      "changelog": "AAAAAAAAAAAAAAAAAAAAAQ"
    }
  }
}"#;
    assert_eq!(text, golden);
}

fn with_value_type(value: TypeIdentity) -> StateConfig {
    let mut config = tiny();
    config.stores[0].schema.value = value;
    config
}

#[test]
fn x3_another_type_of_values_is_refused_until_the_change_is_accepted() {
    let (home, changelog) = with_state();
    let changed = || with_value_type(TypeIdentity::of::<u64>());
    let error = refusal(&home, changed());
    assert!(matches!(error, StateError::TypeChanged { .. }), "{error}");
    let text = error.to_string();
    for part in ["\"counts\"", "values", "str", "u64", "accept the change"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Refusing changed nothing.
    let backend = home.open(tiny()).unwrap();
    recover(&backend, &changelog).unwrap();
    drop(backend);
    let accepting = StateConfig {
        retyped_stores: vec![STORE.to_owned()],
        ..changed()
    };
    drop(home.open(accepting).unwrap());
    // Accepted once, it is the new type, and the old one is refused.
    drop(home.open(changed()).unwrap());
    refusal(&home, tiny());
}

#[test]
fn x3_another_type_of_keys_is_refused_and_another_changelog_binds_nobody() {
    let (home, _) = with_state();
    let mut config = tiny();
    config.stores[0].schema.key = TypeIdentity::of::<u64>();
    let error = refusal(&home, config.clone());
    assert!(
        error.to_string().contains("keys of the type raw bytes"),
        "{error}"
    );
    config.stores[0].changelog = TopicId(2);
    let backend = home.open(config).unwrap();
    assert!(backend.rebuilt().is_some());
}

/// Bytes as version 1 wrote them.
#[test]
fn x3_state_without_types_opens_and_takes_those_of_its_first_use() {
    let (home, changelog) = with_state();
    let path = home.path().join("meta.json");
    let first = r#"{ "format": 1, "state_partitions": 4, "topology": "",
        "stores": { "counts": { "codec": 1, "changelog": "AAAAAAAAAAAAAAAAAAAAAQ" } } }"#;
    std::fs::write(&path, first).unwrap();
    let backend = home.open(tiny()).unwrap();
    assert_eq!(backend.rebuilt(), None);
    recover(&backend, &changelog).unwrap();
    drop(backend);
    refusal(&home, with_value_type(TypeIdentity::of::<u64>()));
    home.open(tiny()).unwrap();
}

#[test]
fn a_partition_has_one_owner_and_an_undeclared_store_none() {
    let (home, _) = with_state();
    let backend = home.open(tiny()).unwrap();
    let store = open_store(&backend).unwrap();
    assert!(matches!(
        open_store(&backend),
        Err(StateError::PartitionInUse {
            state_partition: 0,
            ..
        })
    ));
    drop(store);
    open_store(&backend).unwrap();
    let unknown =
        crate::state::Store::<u64>::open(&backend, "unknown", &[0], crate::codec::Bincode);
    assert!(matches!(unknown, Err(StateError::UnknownStore { .. })));
    let wrong = crate::state::Store::<u64>::open(&backend, STORE, &[0], crate::codec::Json);
    assert!(matches!(wrong, Err(StateError::CodecChanged { .. })));
}

#[test]
fn a_second_process_is_refused_and_damages_nothing() {
    let (home, changelog) = with_state();
    let backend = home.open(tiny()).unwrap();
    let error = refusal(&home, tiny());
    assert!(matches!(error, StateError::Database { .. }), "{error}");
    recover(&backend, &changelog).unwrap();
}
