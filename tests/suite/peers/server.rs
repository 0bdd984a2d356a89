//! Our own broker as a process of its own, as a user starts it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::kafka::free_ports;

/// How long it may take until it serves, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// `onceflow broker` on a directory and a port of its own.
pub(super) struct Server {
    directory: tempfile::TempDir,
    port: u16,
    /// Arguments besides the address and the directory.
    more: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts it and waits until it serves.
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Server::start`], with more arguments.
    pub(super) fn start_with(more: &[&str]) -> Self {
        Self::start_at(free_ports(1)[0], more)
    }

    /// As [`Server::start_with`], on a given port.
    pub(super) fn start_at(port: u16, more: &[&str]) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            port,
            more: more.iter().map(|word| (*word).to_owned()).collect(),
            child: None,
        };
        server.restart();
        server
    }

    /// Where clients find it.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it on its old data and waits until it serves.
    pub(super) fn restart(&mut self) {
        let log = std::fs::File::create(self.log_file()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_onceflow"))
            .args(["broker", "--listen", &self.address(), "--data"])
            .arg(self.data())
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the server does not serve: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it said.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        Path::new(self.directory.path()).join("log.txt")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
