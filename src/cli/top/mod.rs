//! `onceflow top`: a running job on a terminal, by what it answers at `/status`.
//!
//! It writes over its own lines, without a mode of the terminal that an interrupt would leave behind. Reading order: this file (who is
//! asked, and when), `page.rs` (what is shown).

mod page;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::output;
use crate::env::Env;
use crate::net::Pem;
use crate::runtime::{HttpClient, HttpRequest};

/// The longest view: it grows with splits and workers, of which a job may have thousands.
const VIEW_BYTES_MAX: usize = 64 << 20;
/// The longest file with a token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// Longest wait for an answer: the job itself waits 3 s for its log.
const PATIENCE: Duration = Duration::from_secs(10);
/// To the upper left corner; clear to the end of a line; clear what is below; clear all, and to the corner.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J\x1b[H";

const EXAMPLES: &str = "\
Examples:
  onceflow top http://127.0.0.1:8090
  onceflow top https://jobs.example:8090 --ca ca.pem --token-file ~/.onceflow-token
  onceflow top http://127.0.0.1:8090 --output json | jq -r .sentence

The job answers there if its program calls `Running::query().serve(…)`.";

/// Show a running job.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArguments {
    /// Where the job answers questions over HTTP
    url: String,
    /// Show it once, as is done where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// The seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
    /// A file with the token that the job asks for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities of the job's certificate, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Runs `onceflow top`.
pub(super) fn run(env: &Env, arguments: TopArguments) -> anyhow::Result<()> {
    let request = request(env, &arguments)?;
    let client = HttpClient::new(1, arguments.ca.map(Pem::File)).keeping(VIEW_BYTES_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the network")?;
    if arguments.once || output::is_json() || !output::is_terminal() {
        return print(&runtime.block_on(look(&client, &request))?);
    }
    let pause = Duration::from_secs(arguments.every.into());
    runtime.block_on(async {
        tokio::select! {
            failed = watch(&client, &request, pause) => failed,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

fn print(view: &Value) -> anyhow::Result<()> {
    let mut out = output::stdout();
    match output::is_json() {
        true => writeln!(out, "{view}")?,
        false => write!(out, "{}", page::text(view, None))?,
    }
    Ok(out.flush()?)
}

/// Shows one view after the other. The first failure is a mistake of whoever called, and ends it; a later one is news of the job.
async fn watch(client: &HttpClient, request: &HttpRequest, pause: Duration) -> anyhow::Result<()> {
    let mut before = look(client, request).await?;
    draw(&page::text(&before, None), CLEAR_ALL)?;
    loop {
        tokio::time::sleep(pause).await;
        match look(client, request).await {
            Ok(view) => {
                draw(&page::text(&view, Some(&before)), HOME)?;
                before = view;
            }
            Err(error) => draw(&super::message(&error), HOME)?,
        }
    }
}

fn request(env: &Env, arguments: &TopArguments) -> anyhow::Result<HttpRequest> {
    let mut headers = Vec::new();
    if let Some(path) = &arguments.token_file {
        let told = || format!("cannot read the token in {}", path.display());
        let token = env.files.read(path, TOKEN_BYTES_MAX).with_context(told)?;
        let token = String::from_utf8(token).with_context(told)?;
        headers.push((
            "Authorization".to_owned(),
            format!("Bearer {}", token.trim()),
        ));
    }
    Ok(HttpRequest {
        method: "GET".to_owned(),
        url: format!("{}/status", arguments.url.trim_end_matches('/')),
        headers,
        body: Vec::new(),
    })
}

/// Asks a job for its view.
async fn look(client: &HttpClient, request: &HttpRequest) -> anyhow::Result<Value> {
    let url = &request.url;
    let answered = tokio::time::timeout(PATIENCE, client.send(request)).await;
    let answer = match answered {
        Ok(answer) => answer.map_err(|failure| anyhow::anyhow!("{failure}"))?,
        Err(_) => bail!("{url} did not answer within {} s", PATIENCE.as_secs()),
    };
    let body = answer.body_start();
    match answer.status {
        200 => {}
        401 => bail!("the job asks for a token: give it with `--token-file FILE`"),
        status => bail!("{url} answered {status}: {body}"),
    }
    let view: Value = serde_json::from_str(&body)
        .with_context(|| format!("{url} does not answer as a job of Onceflow does"))?;
    if !view["sentence"].is_string() {
        bail!("{url} does not answer as a job of Onceflow does: there is no sentence");
    }
    Ok(view)
}

/// Writes a page from `place` on, over the one before.
fn draw(text: &str, place: &str) -> anyhow::Result<()> {
    let mut out = output::stdout();
    write!(out, "{place}")?;
    for line in text.lines() {
        writeln!(out, "{line}{CLEAR_LINE}")?;
    }
    write!(out, "{CLEAR_BELOW}")?;
    Ok(out.flush()?)
}
