//! [`HttpClient`]: requests of HTTP/1.1 over connections that are kept, bounded in number; TLS by `net`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::env::Env;
use crate::net::{Address, ClientTls, ClientTlsSettings, ConnectTimeouts, Pem, connect};

/// Bytes kept of an answer's body, for people.
const BODY_KEPT_BYTES: usize = 512;
/// A connection whose answer has a longer body is closed: to read on would take longer than to connect again.
const BODY_READ_BYTES: usize = 64 * 1024;

/// A request.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The whole URL, which begins with `http://` or `https://`.
    pub url: String,
    /// Names and values of its headers. `Host` and the length of the body come by themselves.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status, such as 200.
    pub status: u16,
    headers: HeaderMap,
    body_start: Vec<u8>,
}

impl HttpAnswer {
    /// The value of a header, if it has it and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first bytes of its body, as text.
    #[must_use]
    pub fn body_start(&self) -> String {
        String::from_utf8_lossy(&self.body_start).into_owned()
    }

    /// The first bytes of its body: as many as the client keeps.
    #[cfg(any(feature = "otel", feature = "registry"))]
    pub(in crate::runtime) fn body_bytes(&self) -> &[u8] {
        &self.body_start
    }
}

/// The reason why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpFailure {
    /// It is no request, and was not sent.
    NoRequest(String),
    /// The connection failed; nobody knows whether the request was carried out.
    Connection(String),
}

impl fmt::Display for HttpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRequest(why) | Self::Connection(why) => f.write_str(why),
        }
    }
}

/// A place that connections lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    address: Address,
    is_tls: bool,
}

impl Origin {
    fn of(authority: &Authority, is_tls: bool) -> Self {
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        let address = Address { host, port };
        Self { address, is_tls }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A client whose copies share their connections. To be used within tokio.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
    body_kept_bytes: usize,
}

struct Shared {
    connections_max: usize,
    /// One for each connection that may be in use.
    places: Semaphore,
    /// The connections that nobody uses, the one that was used last at the end.
    idle: Mutex<VecDeque<(Origin, Sender)>>,
    ca: Option<Pem>,
    tls: OnceLock<ClientTls>,
}

impl HttpClient {
    /// A client with so many connections at most. Servers' certificates are checked against `ca`, or those that the system trusts.
    #[must_use]
    pub fn new(connections_max: usize, ca: Option<Pem>) -> Self {
        let connections_max = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                connections_max,
                places: Semaphore::new(connections_max),
                idle: Mutex::default(),
                ca,
                tls: OnceLock::new(),
            }),
            body_kept_bytes: BODY_KEPT_BYTES,
        }
    }

    /// The client, with so many bytes of an answer's body kept.
    #[cfg(any(
        feature = "cli",
        feature = "object-store",
        feature = "otel",
        feature = "registry"
    ))]
    pub(crate) fn keeping(self, body_kept_bytes: usize) -> Self {
        Self {
            body_kept_bytes,
            ..self
        }
    }

    /// Sends a request, and waits for a free connection and for the answer as long as its caller does. Where a kept connection turns out
    /// to be closed, the request is sent once more on a new one.
    ///
    /// # Errors
    /// [`HttpFailure`].
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpAnswer, HttpFailure> {
        let (origin, prepared) = prepare(request)?;
        let answer = self.deliver(&origin, prepared, &request.url).await;
        answer.map(|(answer, _)| answer)
    }

    /// Sends a request whose URI is a whole URL, and gives the whole answer: a longer one than is kept is an error. As with
    /// [`send`](Self::send), it may be sent twice.
    ///
    /// # Errors
    /// [`HttpFailure`].
    #[cfg(feature = "object-store")]
    pub(super) async fn send_whole(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Bytes>, HttpFailure> {
        let (origin, prepared) = relative(request)?;
        // Others build the URL, and it may have secrets.
        let place = origin.address.to_string();
        let (answer, is_whole) = self.deliver(&origin, prepared, &place).await?;
        if !is_whole {
            let bytes_max = self.body_kept_bytes;
            return Err(HttpFailure::Connection(format!(
                "an answer of {place} has more than {bytes_max} bytes"
            )));
        }
        let mut response = hyper::Response::new(Bytes::from(answer.body_start));
        *response.headers_mut() = answer.headers;
        *response.status_mut() = hyper::StatusCode::from_u16(answer.status)
            .map_err(|e| HttpFailure::Connection(e.to_string()))?;
        Ok(response)
    }

    /// The answer to a request, and whether its body is whole.
    async fn deliver(
        &self,
        origin: &Origin,
        prepared: Request<Full<Bytes>>,
        url: &str,
    ) -> Result<(HttpAnswer, bool), HttpFailure> {
        let place = self.shared.places.acquire().await;
        let _place = place.map_err(|e| HttpFailure::Connection(e.to_string()))?;
        if let Some(sender) = self.shared.take_idle(origin)
            && let Ok(answer) = self.exchange(origin, sender, prepared.clone()).await
        {
            return Ok(answer);
        }
        let sender = self.shared.connect(origin).await?;
        let answer = self.exchange(origin, sender, prepared).await;
        answer.map_err(|e| {
            HttpFailure::Connection(format!("the connection for {url} failed: {}", causes(&e)))
        })
    }

    /// Sends a request on a connection, which is kept if the whole answer came.
    async fn exchange(
        &self,
        origin: &Origin,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpAnswer, bool), hyper::Error> {
        sender.ready().await?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let (body_start, is_whole) = read_body(body, self.body_kept_bytes).await?;
        if is_whole && !sender.is_closed() {
            self.shared.keep(origin.clone(), sender);
        }
        let answer = HttpAnswer {
            status: head.status.as_u16(),
            headers: head.headers,
            body_start,
        };
        Ok((answer, is_whole))
    }
}

/// The first bytes of a body, and whether all of it was read.
async fn read_body(
    mut body: Incoming,
    kept_bytes_max: usize,
) -> Result<(Vec<u8>, bool), hyper::Error> {
    let (mut kept, mut read_bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else {
            continue;
        };
        read_bytes += bytes.len();
        let room = kept_bytes_max - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if read_bytes > BODY_READ_BYTES.max(kept_bytes_max) {
            return Ok((kept, false));
        }
    }
    Ok((kept, true))
}

/// Where a request goes, and the request as hyper sends it.
fn prepare(request: &HttpRequest) -> Result<(Origin, Request<Full<Bytes>>), HttpFailure> {
    let url = &request.url;
    let refuse = |why: &dyn fmt::Display| {
        HttpFailure::NoRequest(format!("no request can be made of {url:?}: {why}"))
    };
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_tls = scheme.eq_ignore_ascii_case("https");
    if !is_tls && !scheme.eq_ignore_ascii_case("http") {
        return Err(refuse(&"it begins neither with http:// nor with https://"));
    }
    let uri: Uri = url.parse().map_err(|e| refuse(&e))?;
    let Some(authority) = uri.authority() else {
        return Err(refuse(&"it names no host"));
    };
    if authority.as_str().contains('@') {
        return Err(refuse(
            &"a name or password in a URL is not sent: set the header Authorization",
        ));
    }
    let origin = Origin::of(authority, is_tls);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut built = Request::builder()
        .method(request.method.as_str())
        .uri(path)
        .header(HOST, authority.as_str());
    for (name, value) in &request.headers {
        built = built.header(name, value);
    }
    let body = Full::new(Bytes::from(request.body.clone()));
    let built = built.body(body).map_err(|e| refuse(&e))?;
    Ok((origin, built))
}

/// Where a request with a whole URL goes, and the request with its path alone.
#[cfg(feature = "object-store")]
fn relative(
    mut request: Request<Full<Bytes>>,
) -> Result<(Origin, Request<Full<Bytes>>), HttpFailure> {
    let refuse = |why: &dyn fmt::Display| {
        HttpFailure::NoRequest(format!("no request can be made of it: {why}"))
    };
    let uri = request.uri().clone();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => {
            let why = "its URL begins neither with http:// nor with https://";
            return Err(refuse(&why));
        }
    };
    let Some(authority) = uri.authority() else {
        return Err(refuse(&"its URL names no host"));
    };
    let host = authority.as_str().parse().map_err(|e| refuse(&e))?;
    request.headers_mut().insert(HOST, host);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|e| refuse(&e))?;
    Ok((Origin::of(authority, is_tls), request))
}

impl Shared {
    /// A kept connection to a place, the one that was used last.
    fn take_idle(&self, origin: &Origin) -> Option<Sender> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, sender)| !sender.is_closed());
        let place = idle.iter().rposition(|(kept, _)| kept == origin)?;
        idle.remove(place).map(|(_, sender)| sender)
    }

    fn keep(&self, origin: Origin, sender: Sender) {
        self.idle.lock().push_back((origin, sender));
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, HttpFailure> {
        self.make_room();
        let failed = |why: &dyn fmt::Display| {
            let address = &origin.address;
            HttpFailure::Connection(format!("there is no connection to {address}: {why}"))
        };
        let tls = match origin.is_tls {
            true => Some(self.tls().map_err(|e| failed(&e))?),
            false => None,
        };
        let connected = connect(&origin.address, tls, ConnectTimeouts::default()).await;
        let connection = connected.map_err(|e| failed(&e.of_a_web_server()))?;
        let shaken = handshake(TokioIo::new(connection.into_bytes())).await;
        let (sender, driver) = shaken.map_err(|e| failed(&e))?;
        // It ends with the sender; its errors are those of the requests.
        tokio::spawn(async move { drop(driver.await) });
        Ok(sender)
    }

    /// Closes kept connections that would be too many beside those in use and one more.
    fn make_room(&self) {
        let in_use = self.connections_max - self.places.available_permits();
        let mut idle = self.idle.lock();
        while idle.len() + in_use > self.connections_max && idle.pop_front().is_some() {}
    }

    fn tls(&self) -> Result<&ClientTls, crate::net::NetError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let settings = ClientTlsSettings {
            ca: self.ca.clone(),
            certificate: None,
            key: None,
            verify_hostname: true,
        };
        let tls = ClientTls::new(&Env::real(), &settings)?;
        Ok(self.tls.get_or_init(|| tls))
    }
}

/// An error with those that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_of(url: &str) -> Result<Origin, HttpFailure> {
        let request = HttpRequest {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        prepare(&request).map(|(origin, _)| origin)
    }

    #[test]
    fn a_url_names_its_host_and_port_or_is_refused_with_the_reason() {
        let place = |url| {
            let origin = origin_of(url).unwrap();
            (origin.address.host, origin.address.port, origin.is_tls)
        };
        assert_eq!(place("http://a.b/c?d=e"), ("a.b".to_owned(), 80, false));
        assert_eq!(place("https://a.b"), ("a.b".to_owned(), 443, true));
        assert_eq!(place("http://[::1]:8080/"), ("::1".to_owned(), 8080, false));
        for (url, why) in [
            ("a.b/c", "begins neither"),
            ("ftp://a.b", "begins neither"),
            ("http://user:secret@a.b/", "Authorization"),
            ("http://a b/", "invalid"),
            ("/only/a/path", "begins neither"),
        ] {
            let refused = origin_of(url).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
