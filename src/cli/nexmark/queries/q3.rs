//! q3: who sells in category 10 and lives in Oregon, Idaho or California. Both sides are kept for ever.

use super::{Inputs, in_auctions, in_people, join};
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (people, auctions) = inputs.events(job).tee();
    let people = people.filter_map(in_people(|person| {
        let is_near = matches!(&*person.state, "OR" | "ID" | "CA");
        let address = (
            person.name.clone(),
            person.city.clone(),
            person.state.clone(),
        );
        is_near.then_some((person.id, address))
    }));
    let auctions = auctions.filter_map(in_auctions(|auction| {
        (auction.category == 10).then_some((auction.seller, auction.id))
    }));
    join::one_to_many(
        "sellers",
        people
            .key_by(|(id, _)| *id)
            .map(|(_, address)| address.clone()),
        auctions.key_by(|(seller, _)| *seller).map(|(_, id)| *id),
        |(name, city, state): &(String, String, String), auction: &u64| {
            Some((name.clone(), city.clone(), state.clone(), *auction))
        },
    )
    .sink(inputs.results());
}
