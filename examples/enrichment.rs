//! Which orders cannot be delivered where their customers live, and who was told so?
//!
//! ```text
//! onceflow topic create customers --data ./data; onceflow topic create orders --data ./data
//! printf 'ann\tRome\nbob\tOslo\n' | onceflow produce customers --key --data ./data
//! printf 'ann tea\nbob rum\neve jam\n' | onceflow produce orders --data ./data
//! python3 examples/enrichment.py &
//! cargo run --release --features http --example enrichment -- http://127.0.0.1:8000 --data ./data      (stop it with Ctrl-C)
//! onceflow consume answers --from beginning --data ./data
//! ```
//! The service answers `GET /Rome/tea` with 200 or 404. Refusals are told by `POST /mails`, under an `Idempotency-Key` that outlives a crash.

use std::time::Duration;

use onceflow::operators::{EffectTarget, HttpTarget};
use onceflow::prelude::*;
use onceflow::runtime::{HttpClient, HttpRequest, Launch};

/// The customer, the goods, and the city they go to.
pub(crate) type Order = (String, String, String);

fn parse(line: &str) -> anyhow::Result<(String, String)> {
    let (customer, goods) = line.split_once(' ').ok_or_else(|| {
        anyhow::anyhow!(
            "{line:?} is no order: write the name of a customer, a space, and the goods"
        )
    })?;
    Ok((customer.to_owned(), goods.to_owned()))
}

/// `delivers` says whether an order's city gets its goods; `mails` is told of those that do not.
pub(crate) fn job<F, Fut>(delivers: F, mails: impl EffectTarget<String, Order>) -> Launch
where
    F: Fn(Call<String, Order>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(Order, bool), String>> + Send + 'static,
{
    let job = Job::new("enrichment");
    let customers = keyed_topic::<String, String>("customers");
    let cities = job.broadcast(customers.key_codec(Text).codec(Text));
    let (answered, failed) = job
        .source(topic::<str>("orders").codec(Text))
        .try_map(parse)
        .key_by(|(customer, _)| customer.clone())
        .left_join_broadcast(
            &cities,
            |(customer, _)| customer.clone(),
            |(customer, goods), city| {
                let city = city.map_or("nowhere", String::as_str);
                (customer.clone(), goods.clone(), city.to_owned())
            },
        )
        .map_async(
            "delivers",
            CallPolicy::unordered(100).retries(3, Duration::from_millis(100)),
            delivers,
        );
    failed.sink(topic("unanswered"));
    let (answers, refused) = answered.boxed().tee();
    let tell = |((_, goods, city), is_delivered): &(Order, bool)| {
        let word = if *is_delivered { "" } else { "not " };
        format!("{goods}: {word}delivered to {city}")
    };
    answers.map(tell).sink(topic("answers").codec(Text));
    refused
        .filter(|(_, is_delivered)| !is_delivered)
        .map(|(order, _)| order.clone())
        .effect("mail", EffectPolicy::parallel(16), mails)
        .sink(topic("unreachable"));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = JobArguments::from_env()?;
    let [service] = &arguments.files[..] else {
        anyhow::bail!("name the service, as in: enrichment http://127.0.0.1:8000 --data ./data");
    };
    let (client, url) = (HttpClient::new(100, None), service.display().to_string());
    let mails = HttpTarget::post(format!("{url}/mails"));
    let delivers = move |call: Call<String, Order>| {
        let (client, order) = (client.clone(), call.value);
        let request = HttpRequest {
            method: "GET".to_owned(),
            url: format!("{url}/{}/{}", order.2, order.1),
            headers: Vec::new(),
            body: Vec::new(),
        };
        async move {
            match client.send(&request).await.map(|answer| answer.status) {
                Ok(status @ (200 | 404)) => Ok((order, status == 200)),
                Ok(status) => Err(format!("status {status}")),
                Err(why) => Err(why.to_string()),
            }
        }
    };
    let log = arguments.open_log()?;
    job(delivers, mails).run(&log).await?;
    log.close()?;
    Ok(())
}
