//! A server of S3's protocol of the test's own (S3Proxy, which keeps objects as files), and a gate in front of it that can be shut, or that
//! loses answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use onceflow::runtime::file_table::Bucket;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::support::peers;

const KEY: &str = "key";
const SECRET: &str = "secret";

/// The bucket of the tests, at a port of this machine.
pub(super) fn bucket_at(port: u16) -> Bucket {
    Bucket::new("clicks")
        .prefix("some/where")
        .endpoint(&format!("http://127.0.0.1:{port}"))
        .credentials(KEY, SECRET)
}

/// A server that ends with this value, or with the process.
pub(super) struct Store {
    /// A shell that ends the server when its standard input does.
    shell: Child,
    pub(super) port: u16,
    folder: TempDir,
}

impl Store {
    /// A running server with an empty bucket, or none where the machine is not to have it.
    pub(super) fn start() -> Option<Self> {
        if !peers::are_wanted(&["s3"]) {
            return None;
        }
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("objects/clicks")).unwrap();
        let settings = folder.path().join("settings");
        let objects = folder.path().join("objects");
        let text = format!(
            "s3proxy.endpoint=http://127.0.0.1:0\ns3proxy.authorization=aws-v4\ns3proxy.identity={KEY}\ns3proxy.credential={SECRET}\n\
             jclouds.provider=filesystem-nio2\njclouds.filesystem.basedir={}\n",
            objects.display()
        );
        std::fs::write(&settings, text).unwrap();
        let script = "java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlogback.configurationFile=\"$1\" -cp \"$0/*\" \
                      org.gaul.s3proxy.Main --properties \"$2\" </dev/null 2>&1 & server=$!; cat >/dev/null; kill -9 $server";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(peers::cache().join("s3/libs"))
            .arg(peers::root().join("tests/peers/s3/logback.xml"))
            .arg(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("{127.0.0.1:").and_then(|(_, behind)| {
                let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            });
            said.push(line);
            port
        });
        // It goes on to write, and nobody may stop reading.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            shell,
            port: port
                .unwrap_or_else(|| panic!("the server does not say where it listens: {said:#?}")),
            folder,
        })
    }

    /// Where the objects of the bucket are files.
    pub(super) fn table(&self) -> PathBuf {
        self.folder.path().join("objects/clicks/some/where")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

/// Takes connections and hands them on, unless it is shut.
pub(super) struct Gate {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_shut: AtomicBool,
    refused: AtomicUsize,
    /// Whether answers to those who create an entry of the manifest are lost, two of three.
    loses: AtomicBool,
    entries: AtomicUsize,
    lost: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Gate {
    pub(super) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&gate.shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if shared.is_shut.load(Ordering::SeqCst) {
                    shared.refused.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                connect(&shared, client, server);
            }
        });
        gate
    }

    /// Refuses connections and cuts those that are open.
    pub(super) fn shut(&self) {
        self.shared.is_shut.store(true, Ordering::SeqCst);
        for connection in self.shared.open.lock().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn open(&self) {
        self.shared.is_shut.store(false, Ordering::SeqCst);
    }

    pub(super) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    pub(super) fn lose_answers(&self) {
        self.shared.loses.store(true, Ordering::SeqCst);
    }

    pub(super) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways. An answer that is to be lost has been given by the server, which has carried out what was asked.
fn connect(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    shared.open.lock().extend([clone(&client), clone(&server)]);
    let is_lost = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (clone(&client), clone(&server));
    let (asked, asks) = (Arc::clone(shared), Arc::clone(&is_lost));
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if asked.loses.load(Ordering::SeqCst) && creates_an_entry(&bytes[..count]) {
                let number = asked.entries.fetch_add(1, Ordering::SeqCst);
                asks.store(number % 3 < 2, Ordering::SeqCst);
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    let (mut from, mut to) = (server, client);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if is_lost.load(Ordering::SeqCst) {
                shared.lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

fn creates_an_entry(request: &[u8]) -> bool {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    let line = String::from_utf8_lossy(line);
    line.starts_with("PUT ") && line.contains("/manifest/") && line.contains("/worker-")
}

/// A store that does whatever it is asked, and knows no conditions; the port where it listens.
pub(super) fn unconditional() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            std::thread::spawn(move || while answer(&client).is_some() {});
        }
    });
    port
}

/// Reads a request and says that all is well.
fn answer(client: &TcpStream) -> Option<()> {
    let mut lines = BufReader::new(client);
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; body_bytes];
    lines.read_exact(&mut body).ok()?;
    let said = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n";
    let mut client = client;
    client.write_all(said).ok()
}

/// The names of the files below a folder.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = paths.map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    below.flatten().collect()
}
