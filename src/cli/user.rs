//! `onceflow user`: who may log in to the broker of a data directory, also while it runs.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::output::{self, Table};
use super::session::{Absent, DataOption};
use crate::env::Env;
use crate::protocol::sasl::{
    ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, Mechanism, Password, ScramCredential,
    ScramHash, check_user_name,
};
use crate::server::security::Security;

const EXAMPLES: &str = "\
Examples:
  onceflow user add alice --data ./data              reads the password from standard input
  onceflow user list --data ./data
  onceflow user delete alice --data ./data

A broker that runs on the directory knows of the change within a second.";

/// Work on users.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UserArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user, or give one a new password; it is read from standard input
    Add {
        /// The user's name
        name: String,
        /// Hash iterations of the password: more is safer, and slower to log in
        #[arg(long, default_value_t = ITERATIONS_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
        iterations: u32,
    },
    /// List all users
    List,
    /// Delete a user
    Delete {
        /// The user's name
        name: String,
    },
}

/// Runs `onceflow user`.
pub(super) fn run(env: &Env, arguments: UserArguments) -> anyhow::Result<()> {
    let absent = match arguments.action {
        Action::Add { .. } => Absent::Create,
        _ => Absent::Refuse,
    };
    let security = open(env, &arguments.data, absent)?;
    match arguments.action {
        Action::Add { name, iterations } => add(env, &security, name, iterations),
        Action::List => list(&security),
        Action::Delete { name } => match security.delete_credential(&name, None)? {
            true => Ok(()),
            false => bail!("there is no user {name:?}"),
        },
    }
}

/// Users and rules of a data directory.
pub(super) fn open(env: &Env, data: &DataOption, absent: Absent) -> anyhow::Result<Security> {
    let data = data.directory()?;
    if absent == Absent::Refuse && !env.files.exists(&data)? {
        bail!(
            "there is no data directory {}: check --data",
            data.display()
        );
    }
    env.files
        .create_dir(&data)
        .with_context(|| format!("cannot use the data directory {}", data.display()))?;
    Ok(Security::open(env, &data, false, Vec::new())?)
}

fn add(env: &Env, security: &Security, name: String, iterations: u32) -> anyhow::Result<()> {
    check_user_name(&name)?;
    let password = read_password()?;
    let credentials = [ScramHash::Sha256, ScramHash::Sha512].map(|hash| {
        let credential = ScramCredential::new(hash, &password, iterations, &*env.random);
        credential.map(|credential| (name.clone(), credential))
    });
    let [sha_256, sha_512] = credentials;
    Ok(security.set_credentials(&[sha_256?, sha_512?])?)
}

fn read_password() -> anyhow::Result<Password> {
    let input = std::io::stdin();
    if input.is_terminal() {
        output::say("Password (it is shown as you type; or pipe it in):");
    }
    let mut line = String::new();
    input
        .lock()
        .read_line(&mut line)
        .context("cannot read the password")?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        bail!("no password came on standard input");
    }
    Ok(Password::from(password))
}

fn list(security: &Security) -> anyhow::Result<()> {
    let mut table = Table::new(&["user", "mechanism", "iterations"]).with_numbers(&["iterations"]);
    for credential in security.users() {
        table.row([
            output::printable(&credential.user).into_owned(),
            Mechanism::Scram(credential.hash).to_string(),
            credential.iterations.to_string(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}
