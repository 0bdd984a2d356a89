//! Our own broker as a process of its own, as a user starts it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::kafka::free_ports;

/// Longest time until it serves, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// `onceflow broker` on a directory and a port of its own.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    port: u16,
    /// Arguments besides the address and the directory.
    more: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts it and waits until it serves.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Server::start`], with more arguments.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        Self::start_at(free_ports(1)[0], more)
    }

    /// As [`Server::start_with`], on a given port.
    pub(crate) fn start_at(port: u16, more: &[&str]) -> Self {
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
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it with SIGTERM.
    pub(crate) fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}: {}", self.log());
        }
    }

    /// Puts a copy in the place of the data of a broker that was killed: nobody can tell any more what the page cache held.
    pub(crate) fn forget_page_cache(&self) {
        let kept = self.data().with_extension("original");
        std::fs::rename(self.data(), &kept).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&kept)
            .arg(self.data())
            .status();
        assert!(copied.unwrap().success());
        std::fs::remove_dir_all(kept).unwrap();
    }

    /// Starts it on its old data and waits until it serves.
    pub(crate) fn restart(&mut self) {
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

    /// The lines that it logged.
    pub(crate) fn log(&self) -> String {
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
