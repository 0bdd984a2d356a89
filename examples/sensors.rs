//! How warm is it on average at each sensor, minute by minute, and which readings came too late to count?
//!
//! ```text
//! onceflow topic create readings --data ./data
//! printf 'attic 1000 20\nattic 2000 22\nattic 200000 19\nattic 3000 99\n' | onceflow produce readings --data ./data
//! cargo run --release --example sensors -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume means --from beginning --data ./data
//! onceflow consume late-readings --from beginning --data ./data
//! ```
//! A reading is a sensor, its time in milliseconds, and degrees. Readings come up to ten seconds out of order; a minute stays open for
//! another half minute, and what comes later than that is late.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;

type Reading = (String, i64, f64);

fn parse(line: &str) -> anyhow::Result<Reading> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sensor, time, degrees] = words[..] else {
        anyhow::bail!("{line:?} is no reading: write SENSOR MILLISECONDS DEGREES");
    };
    Ok((sensor.to_owned(), time.parse()?, degrees.parse()?))
}

pub(crate) fn job() -> Launch {
    let minutes = FixedWindows::tumbling(Duration::from_secs(60)).grace(Duration::from_secs(30));
    let job = Job::new("sensors");
    let (readings, late) = job
        .source(topic::<str>("readings").codec(Text))
        .try_map(parse)
        .event_time(
            |(_, time, _)| *time,
            Watermarks::out_of_order(Duration::from_secs(10)),
        )
        .key_by_ref(|reading: &Reading| reading.0.as_str())
        .window(minutes)
        .late();
    readings
        .avg("means", |(_, _, degrees)| *degrees)
        .entries(|sensor, mean| format!("{} {} {mean:.1}", sensor.key, sensor.window.start))
        .sink(topic("means").codec(Text));
    late.entries(|sensor, (_, time, degrees)| format!("{sensor} {time} {degrees}"))
        .sink(topic("late-readings").codec(Text));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
