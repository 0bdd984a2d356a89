//! Orders of events, breadth first, over the coordinator that production runs: all of them in small worlds, up to a
//! bound in larger ones; and worlds broken on purpose, each of which must be found out.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::world::{Action, Mutant, World};
use crate::coordinator::transaction::Residence;

/// Depth of each search of a larger world: seconds in a debug build. The random histories go deeper.
const STATES_MAX: usize = 15_000;

/// No small world has so many states.
const SMALL_STATES_MAX: usize = 1_000_000;

struct Explored {
    states: usize,
    /// All states that fewer actions lead to were explored.
    depth: usize,
    /// Whether nothing was left to explore: these are all states that there are.
    is_complete: bool,
    counter_example: Option<(String, Vec<Action>)>,
}

/// Breadth first, so that a counter-example is a shortest one.
fn explore(start: World, states_max: usize) -> Explored {
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut parents: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut frontier = VecDeque::from([(0, 0, start)]);
    let mut explored = Explored {
        states: 1,
        depth: 0,
        is_complete: false,
        counter_example: None,
    };
    while let Some((at, depth, world)) = frontier.pop_front() {
        explored.depth = depth;
        if parents.len() >= states_max {
            return explored;
        }
        for action in world.actions() {
            let mut next = world.clone();
            next.apply(action);
            if !seen.insert(next.fingerprint()) {
                continue;
            }
            parents.push((at, Some(action)));
            explored.states = parents.len();
            if let Some(violation) = next.violation.take() {
                explored.counter_example = Some((violation, path(&parents, parents.len() - 1)));
                return explored;
            }
            frontier.push_back((parents.len() - 1, depth + 1, next));
        }
    }
    explored.is_complete = true;
    explored
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

fn assert_safe(name: &str, world: World, states_max: usize) -> Explored {
    let explored = explore(world, states_max);
    if let Some((violation, actions)) = explored.counter_example {
        panic!("{name}: {violation}, after {actions:#?}");
    }
    let (states, depth) = (explored.states, explored.depth);
    let extent = match explored.is_complete {
        true => "all there are",
        false => "and there are more",
    };
    println!("{name}: {states} states, all that {depth} actions lead to, {extent}");
    explored
}

/// Searches a larger world as far as the bound allows.
fn assert_safe_so_far(name: &str, world: World) {
    let explored = assert_safe(name, world, STATES_MAX);
    assert!(explored.states >= STATES_MAX, "{name} is a small world");
}

/// Searches a small world until there is nothing left to search.
fn assert_safe_everywhere(name: &str, world: World) {
    let explored = assert_safe(name, world, SMALL_STATES_MAX);
    assert!(explored.is_complete, "{name} is no small world");
    assert!(explored.states > 1000, "{name} has next to no states");
}

/// Mishaps in a small world, and how often.
#[derive(Default)]
struct Mishaps {
    crashes: u8,
    kills: u8,
    timeouts: u8,
    copies: u8,
}

fn small_world(clients: usize, partitions: usize, transactions: u8, mishaps: Mishaps) -> World {
    let mut world = world(clients, partitions, Mutant::None);
    world.crashes_left = mishaps.crashes;
    world.kills_left = mishaps.kills;
    world.timeouts_left = mishaps.timeouts;
    world.copies_left = mishaps.copies;
    for client in &mut world.clients {
        client.transactions_left = transactions;
    }
    world
}

fn world(clients: usize, partitions: usize, mutant: Mutant) -> World {
    World::new(clients, partitions, mutant)
}

#[test]
fn every_order_of_one_producer_with_crashes_and_a_timeout_is_safe() {
    let mishaps = |crashes| Mishaps {
        crashes,
        timeouts: 1,
        ..Mishaps::default()
    };
    let name = "1 producer, 1 transaction, 2 crashes, 1 timeout";
    assert_safe_everywhere(name, small_world(1, 1, 1, mishaps(2)));
    let name = "1 producer, 2 transactions, 1 crash, 1 timeout";
    assert_safe_everywhere(name, small_world(1, 1, 2, mishaps(1)));
    let name = "1 producer, 2 partitions, 1 crash, 1 timeout";
    assert_safe_everywhere(name, small_world(1, 2, 1, mishaps(1)));
}

#[test]
fn every_order_of_two_transactions_over_two_partitions_with_a_crash_is_safe() {
    let mishaps = Mishaps {
        crashes: 1,
        ..Mishaps::default()
    };
    let name = "1 producer, 2 transactions, 2 partitions, 1 crash";
    assert_safe_everywhere(name, small_world(1, 2, 2, mishaps));
}

#[test]
fn c11_every_order_of_two_producers_with_a_crash_is_safe() {
    let mishaps = Mishaps {
        crashes: 1,
        ..Mishaps::default()
    };
    assert_safe_everywhere("2 producers, 1 crash", small_world(2, 1, 1, mishaps));
}

#[test]
fn c11_c12_every_order_of_two_producers_with_a_timeout_is_safe() {
    let mishaps = |timeouts| Mishaps {
        timeouts,
        ..Mishaps::default()
    };
    let name = "2 producers, 1 timeout";
    assert_safe_everywhere(name, small_world(2, 1, 1, mishaps(1)));
    let name = "2 producers, 2 partitions";
    assert_safe_everywhere(name, small_world(2, 2, 1, mishaps(0)));
}

#[test]
fn c14_every_order_with_a_copy_is_safe() {
    let mishaps = |crashes, timeouts| Mishaps {
        crashes,
        timeouts,
        copies: 1,
        ..Mishaps::default()
    };
    let name = "1 producer, 1 copy, 1 crash, 1 timeout";
    assert_safe_everywhere(name, small_world(1, 1, 1, mishaps(1, 1)));
    let name = "2 producers, 1 copy";
    assert_safe_everywhere(name, small_world(2, 1, 1, mishaps(0, 0)));
}

#[test]
fn x15_every_order_of_a_producer_that_outlives_the_process_is_safe() {
    let name = "1 producer, 2 kills, 1 timeout";
    let mishaps = Mishaps {
        kills: 2,
        timeouts: 1,
        ..Mishaps::default()
    };
    assert_safe_everywhere(name, small_world(1, 1, 1, mishaps));
    let kill = || Mishaps {
        kills: 1,
        ..Mishaps::default()
    };
    let name = "1 producer, 2 transactions, 2 partitions, 1 kill";
    assert_safe_everywhere(name, small_world(1, 2, 2, kill()));
    let name = "2 producers, 1 kill";
    assert_safe_everywhere(name, small_world(2, 1, 1, kill()));
    let name = "1 producer, 1 kill, 1 copy";
    let mishaps = Mishaps {
        copies: 1,
        ..kill()
    };
    assert_safe_everywhere(name, small_world(1, 1, 1, mishaps));
}

#[test]
fn x15_every_order_of_a_kill_and_a_power_loss_is_safe() {
    let mishaps = Mishaps {
        crashes: 1,
        kills: 1,
        ..Mishaps::default()
    };
    let name = "1 producer, 1 crash, 1 kill";
    assert_safe_everywhere(name, small_world(1, 1, 1, mishaps));
}

#[test]
fn x15_an_embedded_producers_transaction_ends_with_its_process() {
    let mishaps = Mishaps {
        crashes: 1,
        kills: 1,
        ..Mishaps::default()
    };
    let mut world = small_world(1, 1, 1, mishaps);
    world.clients[0].holder = Residence::Embedded;
    assert_safe_everywhere("1 embedded producer, 1 crash, 1 kill", world);
}

#[test]
fn x15_kills_power_losses_and_copies_are_safe_as_far_as_the_search_goes() {
    let mut world = world(2, 2, Mutant::None);
    (world.crashes_left, world.kills_left) = (1, 2);
    (world.copies_left, world.timeouts_left) = (1, 1);
    assert_safe_so_far("kills", world);
}

#[test]
fn one_producer_with_two_crashes_is_safe_as_far_as_the_search_goes() {
    let mut world = world(1, 2, Mutant::None);
    world.crashes_left = 2;
    assert_safe_so_far("crashes", world);
}

#[test]
fn a_zombie_with_a_crash_and_a_timeout_is_safe_as_far_as_the_search_goes() {
    let mut world = world(2, 2, Mutant::None);
    world.crashes_left = 1;
    world.timeouts_left = 1;
    for client in &mut world.clients {
        client.transactions_left = 1;
    }
    assert_safe_so_far("zombie", world);
}

#[test]
fn c14_copies_and_delays_are_safe_as_far_as_the_search_goes() {
    let mut world = world(1, 2, Mutant::None);
    world.copies_left = 2;
    world.timeouts_left = 1;
    assert_safe_so_far("copies", world);
}

#[test]
fn c19_worn_out_epochs_are_safe_as_far_as_the_search_goes() {
    let mut world = world(2, 1, Mutant::None).with_epoch_max(1);
    world.crashes_left = 1;
    world.copies_left = 1;
    assert_safe_so_far("epochs", world);
}

/// Each mutant with the smallest world that shows it.
fn broken_worlds() -> Vec<World> {
    let of = |mutant, clients, partitions, crashes, copies| {
        let mut world = world(clients, partitions, mutant);
        world.crashes_left = crashes;
        world.copies_left = copies;
        world
    };
    let killed = |mutant, crashes| {
        let mut world = of(mutant, 1, 1, crashes, 0);
        world.kills_left = 1;
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
        of(Mutant::OverlookPowerLoss, 1, 1, 1, 0),
        killed(Mutant::ForgetPowerLoss, 1),
        killed(Mutant::SuspectPowerLoss, 0),
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
        (world.crashes_left, world.copies_left, world.timeouts_left) = (3, 8, 3);
        world.kills_left = 4;
        for client in &mut world.clients {
            (client.inits_left, client.transactions_left) = (2, 6);
        }
        // Its process is the broker's: it does not outlive it in truth, but its late requests may.
        world.clients[2].holder = Residence::Embedded;
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
