//! `HttpTarget`: effects that are requests of HTTP.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::target::{Delivery, Effect, EffectTarget};
use crate::codec::{Codec, Json};
use crate::runtime::{HttpAnswer, HttpClient, HttpFailure, HttpRequest, Pem};

/// Connections at most, unless it is said otherwise.
const CONNECTIONS_MAX: usize = 32;

/// Statuses of the class *again* besides those from 500 on: the server wants another try, too early, or too many requests.
const AGAIN: [u16; 3] = [408, 425, 429];

type UrlOf<K, V> = Arc<dyn Fn(&Effect<K, V>) -> String + Send + Sync>;
type HeadersOf<K, V> = Arc<dyn Fn(&Effect<K, V>) -> Vec<(String, String)> + Send + Sync>;
type BodyOf<V> = Arc<dyn Fn(&V) -> Result<Vec<u8>, String> + Send + Sync>;

/// A target of [`effect`](crate::runtime::Keyed::effect) that makes a request of HTTP of each effect, with the header `Idempotency-Key`.
///
/// The status of the answer is its class. 2xx: done. 408, 425, 429, 5xx, and a connection that fails: again, not before the time of the header
/// `Retry-After` if there is one. All others: never; the dead letter has the status and the first bytes of the body. Redirections are not
/// followed. [`done_on`](Self::done_on), [`again_on`](Self::again_on) and [`never_on`](Self::never_on) change the class of a status.
/// The time that a request may take is [`EffectPolicy::timeout`](crate::operators::EffectPolicy::timeout).
///
/// ```
/// use onceflow::prelude::*;
/// use onceflow::operators::HttpTarget;
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Order { id: u64, total: u64 }
///
/// let job = Job::new("orders");
/// let refused = job
///     .keyed_source(keyed_topic::<String, Order>("orders-by-customer"))
///     .effect(
///         "announce",
///         EffectPolicy::parallel(32),
///         HttpTarget::post("https://shop.example/orders")
///             .url(|order: &Effect<String, Order>| format!("https://shop.example/orders/{}", order.value.id))
///             .header("Authorization", "Bearer 7f3a"),
///     );
/// refused.sink(topic("refused-orders").keep_headers());
/// ```
pub struct HttpTarget<K, V> {
    method: String,
    url: UrlOf<K, V>,
    headers: Vec<(String, String)>,
    headers_of: Option<HeadersOf<K, V>>,
    content_type: Option<String>,
    body: BodyOf<V>,
    classes: Vec<(u16, Class)>,
    connections_max: usize,
    ca: Option<Pem>,
    client: HttpClient,
}

/// The class of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Done,
    Again,
    Never,
}

impl<K, V> Clone for HttpTarget<K, V> {
    fn clone(&self) -> Self {
        Self {
            method: self.method.clone(),
            url: Arc::clone(&self.url),
            headers: self.headers.clone(),
            headers_of: self.headers_of.clone(),
            content_type: self.content_type.clone(),
            body: Arc::clone(&self.body),
            classes: self.classes.clone(),
            connections_max: self.connections_max,
            ca: self.ca.clone(),
            client: self.client.clone(),
        }
    }
}

impl<K: 'static, V: Clone + 'static> HttpTarget<K, V>
where
    Json: Codec<V>,
{
    /// Requests of this method, to this URL, with the value as JSON in their body.
    #[must_use]
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let url = url.into();
        Self {
            method: method.into(),
            url: Arc::new(move |_| url.clone()),
            headers: Vec::new(),
            headers_of: None,
            content_type: Some("application/json".to_owned()),
            body: body_of(Json),
            classes: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            ca: None,
            client: HttpClient::new(CONNECTIONS_MAX, None),
        }
    }

    /// `POST` of the value as JSON to this URL.
    #[must_use]
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// `PUT` of the value as JSON to this URL.
    #[must_use]
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }
}

impl<K: 'static, V: Clone + 'static> HttpTarget<K, V> {
    /// Takes the URL from the effect.
    #[must_use]
    pub fn url(self, url: impl Fn(&Effect<K, V>) -> String + Send + Sync + 'static) -> Self {
        Self {
            url: Arc::new(url),
            ..self
        }
    }

    /// Adds a header to each request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds headers that are taken from the effect: names and values.
    #[must_use]
    pub fn headers(
        self,
        headers: impl Fn(&Effect<K, V>) -> Vec<(String, String)> + Send + Sync + 'static,
    ) -> Self {
        Self {
            headers_of: Some(Arc::new(headers)),
            ..self
        }
    }

    /// Writes bodies with this codec instead, of this content type.
    #[must_use]
    pub fn codec(self, codec: impl Codec<V>, content_type: impl Into<String>) -> Self {
        Self {
            content_type: Some(content_type.into()),
            body: body_of(codec),
            ..self
        }
    }

    /// Sends requests without a body.
    #[must_use]
    pub fn without_body(self) -> Self {
        Self {
            content_type: None,
            body: Arc::new(|_| Ok(Vec::new())),
            ..self
        }
    }

    /// Has so many connections at most, which are kept and used again; the default is 32.
    #[must_use]
    pub fn connections_max(self, count: usize) -> Self {
        Self {
            connections_max: count,
            client: HttpClient::new(count, self.ca.clone()),
            ..self
        }
    }

    /// Trusts the certificates of these authorities, and not those that the system trusts.
    #[must_use]
    pub fn trust(self, ca: Pem) -> Self {
        Self {
            client: HttpClient::new(self.connections_max, Some(ca.clone())),
            ca: Some(ca),
            ..self
        }
    }

    /// Takes this status for *done*: 409 of a service that says so of a key it has seen, for example.
    #[must_use]
    pub fn done_on(self, status: u16) -> Self {
        self.classed(status, Class::Done)
    }

    /// Takes this status for *again*: 404 of what somebody else is about to create, for example.
    #[must_use]
    pub fn again_on(self, status: u16) -> Self {
        self.classed(status, Class::Again)
    }

    /// Takes this status for *never*.
    #[must_use]
    pub fn never_on(self, status: u16) -> Self {
        self.classed(status, Class::Never)
    }

    fn classed(mut self, status: u16, class: Class) -> Self {
        self.classes.push((status, class));
        self
    }

    fn request(&self, effect: &Effect<K, V>) -> Result<HttpRequest, String> {
        let body = (self.body)(&effect.value)
            .map_err(|e| format!("its value has no form as a body: {e}"))?;
        let mut headers = vec![("idempotency-key".to_owned(), effect.idempotency_key())];
        let content_type = self.content_type.iter();
        headers.extend(content_type.map(|it| ("content-type".to_owned(), it.clone())));
        headers.extend(self.headers.iter().cloned());
        headers.extend(self.headers_of.iter().flat_map(|of| of(effect)));
        Ok(HttpRequest {
            method: self.method.clone(),
            url: (self.url)(effect),
            headers,
            body,
        })
    }

    fn class_of(&self, status: u16) -> Class {
        let told = self.classes.iter().rfind(|(it, _)| *it == status);
        told.map_or_else(|| class_of(status), |(_, class)| *class)
    }

    fn answer(&self, url: &str, answer: &HttpAnswer) -> Delivery {
        let why = || told(url, answer.status, &answer.body_start());
        match self.class_of(answer.status) {
            Class::Done => Delivery::Done,
            Class::Never => Delivery::never(why()),
            Class::Again => Delivery::Again {
                why: why(),
                after: pause_of(answer.header("retry-after"), answer.header("date")),
            },
        }
    }
}

fn body_of<V: Clone + 'static>(codec: impl Codec<V>) -> BodyOf<V> {
    Arc::new(move |value| {
        let mut bytes = Vec::new();
        let written = codec.encode(value, &mut bytes);
        written.map(|()| bytes).map_err(|e| e.to_string())
    })
}

fn class_of(status: u16) -> Class {
    match status {
        200..=299 => Class::Done,
        500..=599 => Class::Again,
        _ if AGAIN.contains(&status) => Class::Again,
        _ => Class::Never,
    }
}

/// An answer, for people.
fn told(url: &str, status: u16, body: &dyn Display) -> String {
    let hint = match status {
        300..=399 => " (redirections are not followed: name the place itself)",
        _ => "",
    };
    let body = body.to_string();
    match body.trim() {
        "" => format!("{url} answered {status}{hint}"),
        body => format!("{url} answered {status}{hint}: {body}"),
    }
}

/// The pause that the header `Retry-After` asks for: seconds, or a date, which is compared with the server's own.
fn pause_of(retry_after: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let text = retry_after?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text: &str| jiff::fmt::rfc2822::parse(text).map(|at| at.timestamp());
    let (until, now) = (time(text).ok()?, time(date?.trim()).ok()?);
    Duration::try_from(until.duration_since(now)).ok()
}

impl<K, V> EffectTarget<K, V> for HttpTarget<K, V>
where
    K: Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn deliver(&self, effect: Effect<K, V>) -> Delivery {
        let request = match self.request(&effect) {
            Ok(request) => request,
            Err(why) => return Delivery::never(why),
        };
        match self.client.send(&request).await {
            Ok(answer) => self.answer(&request.url, &answer),
            Err(HttpFailure::NoRequest(why)) => Delivery::never(why),
            Err(HttpFailure::Connection(why)) => Delivery::again(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o11_each_status_has_its_class() {
        let of = |class| (100..600).filter(move |status| class_of(*status) == class);
        assert!(of(Class::Done).eq(200..300));
        assert!(of(Class::Again).eq(AGAIN.into_iter().chain(500..600)));
        let target = HttpTarget::<String, u64>::post("http://localhost")
            .done_on(409)
            .again_on(404)
            .never_on(501)
            .again_on(409);
        let classes = [409, 404, 501, 500].map(|status| target.class_of(status));
        assert_eq!(
            classes,
            [Class::Again, Class::Again, Class::Never, Class::Again]
        );
    }

    #[test]
    fn o11_a_server_asks_for_a_pause_in_seconds_or_by_a_date() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let seconds = |text| pause_of(Some(text), now).map(|pause| pause.as_secs());
        assert_eq!(seconds(" 17 "), Some(17));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:48:37 GMT"), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(pause_of(None, now), None);
        assert_eq!(pause_of(Some("Sun, 06 Nov 1994 08:50:37 GMT"), None), None);
    }
}
