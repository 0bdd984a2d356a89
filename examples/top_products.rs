//! Which three products of each category sell best?
//!
//! ```text
//! onceflow topic create sales --data ./data
//! printf 'drinks tea\ndrinks rum\ndrinks tea\nfood jam\n' | onceflow produce sales --data ./data
//! cargo run --release --example top_products -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume best-sellers --from beginning --data ./data
//! ```
//! A sale is a category and a product. The last line of a category is its list now, the best first:
//! `[[2,"drinks/tea"],[1,"drinks/rum"]]`.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;

type Sale = (String, String);

fn parse(line: &str) -> anyhow::Result<Sale> {
    match line.split_once(' ') {
        Some((category, product)) => Ok((category.to_owned(), product.to_owned())),
        None => anyhow::bail!("{line:?} is no sale: write CATEGORY PRODUCT"),
    }
}

pub(crate) fn job() -> Launch {
    let job = Job::new("top-products");
    job.source(topic::<str>("sales").codec(Text))
        .try_map(parse)
        .key_by(|sale: &Sale| sale.clone())
        .count("sold")
        .group_by(|(category, product), sold| {
            (category.clone(), (*sold, format!("{category}/{product}")))
        })
        .top_n("best", 3, |(sold, _)| *sold)
        .changes()
        .sink(
            topic::<Vec<(u64, String)>>("best-sellers")
                .codec(Json)
                .as_option(),
        );
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
