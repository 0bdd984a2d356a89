//! A real schema registry of the test's own (Apicurio, with the interface of Confluent's), and a gate in front of it that can be shut.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onceflow::runtime::registry::Registry;
use parking_lot::Mutex;

use crate::support::peers;

/// The registry's path to the interface.
const PATH: &str = "/apis/ccompat/v7";

/// A registry that ends with this value, or with the process.
pub(super) struct Server {
    /// A shell that ends the registry when its standard input does.
    shell: Child,
    port: u16,
    /// Where it listens for TLS, if it does.
    secured_port: Option<u16>,
    gate: Gate,
}

/// Takes connections and hands them on, unless it is shut.
struct Gate {
    port: u16,
    is_shut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    /// A running registry, or none where the machine is not to have it.
    pub(super) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// One that also listens for TLS, with a certificate and its key from these files.
    pub(super) fn start_secured(certificate: &Path, key: &Path) -> Option<Self> {
        Self::start_with(&format!(
            "-Dquarkus.http.ssl-port=0 -Dquarkus.http.ssl.certificate.files={} -Dquarkus.http.ssl.certificate.key-files={}",
            certificate.display(),
            key.display()
        ))
    }

    fn start_with(settings: &str) -> Option<Self> {
        if !peers::are_wanted(&["registry"]) {
            return None;
        }
        let jar = peers::cache().join("registry/runner.jar");
        let script = format!(
            "java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dquarkus.http.port=0 -Dquarkus.http.host=127.0.0.1 {settings} \
             -jar \"$0\" </dev/null & registry=$!; cat >/dev/null; kill -9 $registry"
        );
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .arg(jar)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let listens = lines.find_map(|line| {
            let line = line.unwrap();
            line.contains("Listening on: http://").then_some(line)
        });
        // It goes on to write, and nobody may stop reading.
        std::thread::spawn(move || lines.for_each(drop));
        let listens = listens.expect("the registry says where it listens");
        let port = port_behind(&listens, "http://127.0.0.1:").expect("it listens without TLS");
        Some(Self {
            shell,
            port,
            secured_port: port_behind(&listens, "https://127.0.0.1:"),
            gate: Gate::before(port),
        })
    }

    /// A client that comes through the gate.
    pub(super) fn client(&self) -> Registry {
        Registry::new(&self.url()).unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.gate.port)
    }

    /// The address for TLS, not by way of the gate.
    pub(super) fn secured_url(&self) -> String {
        let port = self.secured_port.expect("it listens for TLS");
        format!("https://127.0.0.1:{port}{PATH}")
    }

    /// Refuses connections and cuts those that are open.
    pub(super) fn shut(&self) {
        self.gate.is_shut.store(true, Ordering::SeqCst);
        for connection in self.gate.open.lock().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn open(&self) {
        self.gate.is_shut.store(false, Ordering::SeqCst);
    }

    /// Sets the rule for later versions of a subject.
    pub(super) fn set_compatibility(&self, subject: &str, rule: &str) {
        let body = format!("{{\"compatibility\": \"{rule}\"}}");
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!(
            "PUT {PATH}/config/{subject} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn port_behind(line: &str, address: &str) -> Option<u16> {
    let (_, behind) = line.split_once(address)?;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

impl Gate {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            port: listener.local_addr().unwrap().port(),
            is_shut: Arc::default(),
            open: Arc::default(),
        };
        let (is_shut, open) = (Arc::clone(&gate.is_shut), Arc::clone(&gate.open));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if is_shut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                open.lock()
                    .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                carry(client.try_clone().unwrap(), server.try_clone().unwrap());
                carry(server, client);
            }
        });
        gate
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
