//! A PostgreSQL of the test's own: a fresh cluster in a temporary directory, reached by a socket there.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::peers;

/// The newest installed binaries.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut found: Vec<PathBuf> = versions
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|path| path.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("scripts/peers has installed PostgreSQL")
}

fn number_of(argument: &str) -> u32 {
    let text = peers::output_of(Command::new("id").args([argument, "postgres"]));
    text.trim().parse().unwrap()
}

/// The server refuses to run as root: then it runs as the user that its package made.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(binaries().join(name));
    let is_root = peers::output_of(Command::new("id").arg("-u")).trim() == "0";
    if is_root {
        let (user, group) = (number_of("-u"), number_of("-g"));
        std::os::unix::fs::chown(folder, Some(user), Some(group)).unwrap();
        command.uid(user).gid(group);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A cluster whose server can be killed and started again.
pub(super) struct Server {
    folder: tempfile::TempDir,
    child: Child,
    settings: Vec<String>,
    /// The number in the name of its socket, and the port where it has one.
    port: u16,
}

impl Server {
    /// A running server, or none where the machine is not to have it.
    pub(super) fn start() -> Option<Self> {
        Self::start_with(5432, &[], |_| {})
    }

    pub(super) fn start_with(
        port: u16,
        settings: &[&str],
        prepare: impl FnOnce(&Path),
    ) -> Option<Self> {
        if !peers::are_wanted(&["postgres"]) {
            return None;
        }
        // Short, because a socket's path may have 107 bytes.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let data = folder.path().join("cluster");
        let mut initialise = command("initdb", folder.path());
        peers::output_of(
            initialise
                .args([
                    "--no-sync",
                    "--auth=trust",
                    "--username=onceflow",
                    "-E",
                    "UTF8",
                    "--locale=C",
                    "-D",
                ])
                .arg(&data),
        );
        prepare(&data);
        let port_setting = [format!("port={port}")];
        let settings = settings.iter().map(|it| (*it).to_owned());
        let settings: Vec<String> = settings.chain(port_setting).collect();
        let child = launch(folder.path(), &settings);
        let server = Self {
            folder,
            child,
            settings,
            port,
        };
        server.wait_until_ready();
        Some(server)
    }

    /// The connection string.
    pub(super) fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("host={folder} user=onceflow dbname=postgres")
    }

    /// Kills the server, and with it all that it had not written: its processes go when they see that it is gone.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after a kill.
    pub(super) fn start_again(&mut self) {
        let begin = Instant::now();
        loop {
            self.child = launch(self.folder.path(), &self.settings);
            if self.becomes_ready() {
                return;
            }
            // The orphans of the killed one still hold its memory.
            assert!(
                begin.elapsed() < PATIENCE,
                "PostgreSQL does not start again"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_until_ready(&self) {
        let begin = Instant::now();
        while !self.answers() {
            assert!(begin.elapsed() < PATIENCE, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn becomes_ready(&mut self) -> bool {
        loop {
            if self.answers() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        self.psql(self.port, "SELECT 1").status().unwrap().success()
    }

    fn psql(&self, port: u16, statements: &str) -> Command {
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(self.folder.path())
            .args([
                "-p",
                &port.to_string(),
                "-U",
                "onceflow",
                "-d",
                "postgres",
                "-c",
                statements,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        psql
    }

    /// The rows that statements give, a line each, their columns between `|`.
    pub(super) fn ask(&self, statements: &str) -> Vec<String> {
        let mut psql = self.psql(self.port, statements);
        let text = peers::output_of(psql.stdout(Stdio::piped()).stderr(Stdio::piped()));
        text.lines().map(str::to_owned).collect()
    }

    /// A number that a statement gives.
    pub(super) fn number(&self, statement: &str) -> i64 {
        self.ask(statement)[0].parse().unwrap()
    }
}

/// The time that a server may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn launch(folder: &Path, settings: &[String]) -> Child {
    let mut server = command("postgres", folder);
    server
        .arg("-D")
        .arg(folder.join("cluster"))
        .arg("-k")
        .arg(folder);
    // A kill of processes leaves what the system was given, so syncs would only take time.
    for setting in [
        "listen_addresses=",
        "fsync=off",
        "max_connections=40",
        "shared_buffers=16MB",
    ] {
        server.args(["-c", setting]);
    }
    for setting in settings {
        server.args(["-c", setting]);
    }
    let log = std::fs::File::create(folder.join("server.log")).unwrap();
    server.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // The orphans write on for a moment; what they leave would stay in /tmp.
        let data = self.folder.path().join("cluster");
        for _ in 0..100 {
            if std::fs::remove_dir_all(&data).is_ok() || !data.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
