//! Orders of events, breadth first up to a bound, over the coordinator that production runs; and worlds broken on purpose, each of which must be found out.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::world::{Action, Mutant, World};

/// How far each search goes: seconds in a debug build. The random histories go deeper.
const STATES_MAX: usize = 15_000;

struct Explored {
    states: usize,
    is_complete: bool,
    counter_example: Option<(String, Vec<Action>)>,
}

/// Breadth first, so that a counter-example is a shortest one.
fn explore(start: World, states_max: usize) -> Explored {
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut parents: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut frontier = VecDeque::from([(0, start)]);
    while let Some((at, world)) = frontier.pop_front() {
        if parents.len() >= states_max {
            return Explored {
                states: parents.len(),
                is_complete: false,
                counter_example: None,
            };
        }
        for action in world.actions() {
            let mut next = world.clone();
            next.apply(action);
            if !seen.insert(next.fingerprint()) {
                continue;
            }
            parents.push((at, Some(action)));
            if let Some(violation) = next.violation.take() {
                return Explored {
                    states: parents.len(),
                    is_complete: false,
                    counter_example: Some((violation, path(&parents, parents.len() - 1))),
                };
            }
            frontier.push_back((parents.len() - 1, next));
        }
    }
    Explored {
        states: parents.len(),
        is_complete: true,
        counter_example: None,
    }
}

fn path(parents: &[(usize, Option<Action>)], mut at: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    while let (parent, Some(action)) = parents[at] {
        actions.push(action);
        at = parent;
    }
    actions.reverse();
    actions
}

fn assert_safe(name: &str, world: World, states_max: usize) {
    let explored = explore(world, states_max);
    if let Some((violation, actions)) = explored.counter_example {
        panic!("{name}: {violation}, after {actions:#?}");
    }
    println!(
        "{name}: {} states, complete: {}",
        explored.states, explored.is_complete
    );
    assert!(explored.states > 1000, "{name} explored next to nothing");
}

fn world(clients: usize, partitions: usize, mutant: Mutant) -> World {
    World::new(clients, partitions, mutant)
}

#[test]
fn one_producer_with_two_crashes_is_safe_as_far_as_the_search_goes() {
    let mut world = world(1, 2, Mutant::None);
    world.crashes_left = 2;
    assert_safe("crashes", world, STATES_MAX);
}

#[test]
fn a_zombie_with_a_crash_and_a_timeout_is_safe_as_far_as_the_search_goes() {
    let mut world = world(2, 2, Mutant::None);
    world.crashes_left = 1;
    world.timeouts_left = 1;
    for client in &mut world.clients {
        client.transactions_left = 1;
    }
    assert_safe("zombie", world, STATES_MAX);
}

#[test]
fn c14_copies_and_delays_are_safe_as_far_as_the_search_goes() {
    let mut world = world(1, 2, Mutant::None);
    world.copies_left = 2;
    world.timeouts_left = 1;
    assert_safe("copies", world, STATES_MAX);
}

#[test]
fn c19_worn_out_epochs_are_safe_as_far_as_the_search_goes() {
    let mut world = world(2, 1, Mutant::None).with_epoch_max(1);
    world.crashes_left = 1;
    world.copies_left = 1;
    assert_safe("epochs", world, STATES_MAX);
}

/// Each mutant with the smallest world that shows it.
fn broken_worlds() -> Vec<World> {
    let of = |mutant, clients, partitions, crashes, copies| {
        let mut world = world(clients, partitions, mutant);
        world.crashes_left = crashes;
        world.copies_left = copies;
        world
    };
    vec![
        of(Mutant::SkipAppendCheck, 2, 1, 0, 0),
        of(Mutant::ForgetMarker, 1, 1, 0, 0),
        of(Mutant::ForgetOpenTransactions, 1, 1, 1, 0),
        of(Mutant::DecideBeforeSync, 1, 1, 1, 0),
        of(Mutant::UnsyncedJournal, 1, 1, 1, 0),
        of(Mutant::ServeUnsyncedRecovery, 1, 1, 2, 0),
        of(Mutant::ForgetEarlierMarkers, 1, 2, 1, 0),
        of(Mutant::MutateBeforeAppend, 1, 1, 1, 0),
        of(Mutant::ForgetLastCommit, 1, 1, 1, 0),
        of(Mutant::EndIgnoresEpoch, 1, 1, 0, 1),
        of(Mutant::MarkersBeforeDecision, 1, 1, 0, 0),
        of(Mutant::CommitOpenOnRecovery, 1, 1, 1, 0),
    ]
}

#[test]
fn every_broken_world_yields_a_counter_example() {
    for world in broken_worlds() {
        let mutant = world.mutant;
        let explored = explore(world, 60_000);
        let Some((violation, actions)) = explored.counter_example else {
            panic!("{mutant:?} was not found out in {} states", explored.states);
        };
        println!("{mutant:?}: {violation} ({} steps)", actions.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Longer runs than the breadth-first search can afford: more partitions, clients, crashes and copies, in random orders.
    #[test]
    fn long_random_histories_are_safe(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..150), epoch_max in 1i16..4) {
        let mut world = world(3, 3, Mutant::None).with_epoch_max(epoch_max);
        (world.crashes_left, world.copies_left, world.timeouts_left) = (4, 8, 3);
        for client in &mut world.clients {
            (client.inits_left, client.transactions_left) = (2, 6);
        }
        let mut history = Vec::new();
        for choice in choices {
            let actions = world.actions();
            if actions.is_empty() {
                break;
            }
            let action = actions[choice.index(actions.len())];
            history.push(action);
            world.apply(action);
            prop_assert!(world.violation.is_none(), "{:?} after {history:#?}", world.violation);
        }
        world.settle();
        prop_assert!(world.violation.is_none(), "{:?} after {history:#?}", world.violation);
    }
}
