//! An object store that speaks S3's protocol as the place of the files. Requests go over the crate's own HTTP and TLS.
//!
//! Entries of the manifest are created with `If-None-Match: *`, so of two who create one, one is told that it is there (O4). A store
//! that ignores this is refused before the first row. Whoever gets no answer reads the entry back (O6). What was sent twice, or comes late,
//! finds the entry there, and changes nothing.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::channel::oneshot;
use http_body_util::{BodyExt, Full};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, S3ConditionalPut};
use object_store::client::{
    HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, RetryConfig, StaticCredentialProvider,
};

use super::manifest::{self, PublishedFile};
use super::storage::{ENTRY_BYTES_MAX, Problem, Put, Storage};
use crate::client::wait;
use crate::net::{OwnRuntime, Pem};
use crate::runtime::JobError;
use crate::runtime::connectors::http_client::{HttpClient, HttpFailure};

/// Connections to the store at most; a worker needs one.
const CONNECTIONS_MAX: usize = 32;
/// The time in which an answer must come, and that for each MiB of the request beside it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_PER_MIB: Duration = Duration::from_secs(1);
/// Attempts in one go at a request that may be sent twice, and their time. One that fails then is tried again by the job.
const RETRIES_MAX: usize = 4;
const RETRY_PATIENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A bucket of an object store that speaks S3's protocol, and where in it the files are: the place of an
/// [`object_table`](super::object_table), with the feature `object-store`.
///
/// Settings that are not given come from the environment, as by other programs: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT`; else the credentials are those of the machine or the container.
///
/// ```
/// use onceflow::runtime::file_table::Bucket;
///
/// let at_amazon = Bucket::new("warehouse").prefix("sales/orders").region("eu-central-1");
/// let at_home = Bucket::new("warehouse").endpoint("http://127.0.0.1:9000").credentials("name", "secret");
/// ```
#[derive(Clone)]
pub struct Bucket {
    name: String,
    prefix: String,
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Option<(String, String)>,
    ca: Option<Pem>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_deref().unwrap_or("S3");
        write!(f, "Bucket({} at {endpoint})", self.url())
    }
}

impl Bucket {
    /// A bucket, by its name. It must be there.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            credentials: None,
            ca: None,
        }
    }

    /// Puts the files below this path in the bucket.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.trim_matches('/').to_owned();
        self
    }

    /// Sets the region. The default is `us-east-1`.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Sets the URL of a store other than Amazon's, without the bucket. It is not encrypted if it begins with `http://`.
    #[must_use]
    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// Logs in with an access key and its secret.
    #[must_use]
    pub fn credentials(mut self, access_key: &str, secret: &str) -> Self {
        self.credentials = Some((access_key.to_owned(), secret.to_owned()));
        self
    }

    /// Checks the store's certificate against these authorities instead of those that the system trusts.
    #[must_use]
    pub fn ca(mut self, ca: Pem) -> Self {
        self.ca = Some(ca);
        self
    }

    /// The data files that are committed in it, as [`published`](super::published) has them of a directory. Names are relative to the prefix.
    ///
    /// # Errors
    /// If the store cannot be read, or the manifest is damaged.
    pub fn published(&self) -> Result<Vec<PublishedFile>, JobError> {
        let files = self
            .open()
            .and_then(|objects| manifest::published(&objects));
        files.map_err(|problem| problem.into_error(&self.url()))
    }

    /// The bucket and the prefix, by which the marks of a sink are known.
    pub(super) fn url(&self) -> String {
        format!("s3://{}/{}", self.name, self.prefix)
    }

    pub(super) fn open(&self) -> Result<Objects, Problem> {
        let store = self.store().map_err(|e| Problem::refused(e.to_string()))?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("of-objects");
        let runtime = runtime.enable_all().build();
        let runtime = runtime.map_err(|e| Problem::passing(e.to_string()))?;
        Ok(Objects {
            store: Arc::new(store),
            prefix: self.prefix.clone(),
            runtime: runtime.into(),
        })
    }

    fn store(&self) -> object_store::Result<AmazonS3> {
        let client = HttpClient::new(CONNECTIONS_MAX, self.ca.clone());
        let kept_bytes = usize::try_from(ENTRY_BYTES_MAX).unwrap_or(usize::MAX);
        let backoff = BackoffConfig {
            init_backoff: FIRST_PAUSE,
            max_backoff: LONGEST_PAUSE,
            ..BackoffConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.name)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true)
            .with_http_connector(Wire(client.keeping(kept_bytes)))
            .with_retry(RetryConfig {
                backoff,
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_PATIENCE,
            });
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_virtual_hosted_style_request(false);
        }
        if let Some((key_id, secret)) = &self.credentials {
            builder =
                builder.with_credentials(Arc::new(StaticCredentialProvider::new(AwsCredential {
                    key_id: key_id.clone(),
                    secret_key: secret.clone(),
                    token: None,
                })));
        }
        builder.build()
    }
}

/// A bucket that is in use.
pub(super) struct Objects {
    store: Arc<AmazonS3>,
    prefix: String,
    runtime: OwnRuntime,
}

/// Returns the meaning of an error for the job. Requests that may be sent twice have been tried a few times already.
fn failed(error: Error) -> Problem {
    let advice = match &error {
        Error::Generic { .. } => return Problem::passing(error.to_string()),
        Error::NotFound { .. } => "; the bucket must be there",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "; check the access key, its secret, and what it may do with the bucket"
        }
        _ => "",
    };
    Problem::refused(format!("{error}{advice}"))
}

impl Objects {
    fn at(&self, path: &str) -> Path {
        Path::from(format!("{}/{path}", self.prefix))
    }

    /// Carries out a request on the thread of the store, and waits for it.
    fn ask<A, F>(&self, request: impl FnOnce(Arc<AmazonS3>) -> F) -> Result<A, Error>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let request = request(Arc::clone(&self.store));
        self.runtime.spawn(async move {
            // Nobody listens if the caller is gone.
            let _ = done.send(request.await);
        });
        wait(answer).unwrap_or_else(|_| {
            Err(Error::Generic {
                store: "S3",
                source: "its thread is gone".into(),
            })
        })
    }

    fn create_object(&self, path: &str, bytes: &[u8]) -> Result<Put, Problem> {
        let (at, payload) = (self.at(path), PutPayload::from(bytes.to_vec()));
        let options = PutOptions::from(PutMode::Create);
        let put = self.ask(|store| async move { store.put_opts(&at, payload, options).await });
        match put {
            Ok(_) => Ok(Put::Done),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Exists),
            Err(e) => Err(failed(e)),
        }
    }
}

impl Storage for Objects {
    /// A store has no folders.
    fn create(&self, _folders: &[&str]) -> Result<(), Problem> {
        Ok(())
    }

    fn check(&self, probe: &str) -> Result<(), Problem> {
        // Who finds it there has been told so by the store, which is the proof.
        for _ in 0..2 {
            if self.create_object(probe, b"{}")? == Put::Exists {
                return Ok(());
            }
        }
        Err(Problem::refused(
            "it overwrites an object that it was asked to create (If-None-Match: *), so it cannot hold a manifest: take a store that knows \
             conditional writes, or its newer version",
        ))
    }

    fn put_file(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem> {
        let (at, payload) = (self.at(path), PutPayload::from(bytes));
        let options = PutOptions::default();
        let put = self.ask(|store| async move { store.put_opts(&at, payload, options).await });
        put.map(drop).map_err(failed)
    }

    fn put_entry(&self, path: &str, bytes: &[u8]) -> Result<Put, Problem> {
        self.create_object(path, bytes)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Problem> {
        let at = self.at(path);
        let read = self.ask(|store| async move {
            let found = store.get_opts(&at, GetOptions::default()).await?;
            found.bytes().await
        });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    fn list(&self, folder: &str, from: &str) -> Result<Vec<String>, Problem> {
        let at = self.at(folder);
        // Names are in order, so a store need not list what is before.
        let before = (!from.is_empty()).then(|| self.at(&format!("{folder}/{from}")));
        let names = self.ask(|store| async move {
            let listed = match &before {
                Some(before) => store.list_with_offset(Some(&at), before),
                None => store.list(Some(&at)),
            };
            let name = |path: Path| path.filename().unwrap_or_default().to_owned();
            listed
                .map_ok(|found| name(found.location))
                .try_collect::<Vec<String>>()
                .await
        });
        names.map_err(failed)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>, Problem> {
        let at = self.at(folder);
        let found = self.ask(|store| async move { store.list_with_delimiter(Some(&at)).await });
        let found = found.map_err(failed)?;
        let names = found.common_prefixes.iter().filter_map(Path::filename);
        Ok(names.map(str::to_owned).collect())
    }

    fn remove(&self, path: &str) -> Result<(), Problem> {
        let at = self.at(path);
        let removed = self.ask(|store| async move { store.delete(&at).await });
        removed.map_err(failed)
    }
}

/// The crate's own HTTP, for the requests of the store's client.
#[derive(Clone)]
struct Wire(HttpClient);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl HttpConnector for Wire {
    fn connect(
        &self,
        _options: &ClientOptions,
    ) -> object_store::Result<object_store::client::HttpClient> {
        Ok(object_store::client::HttpClient::new(self.clone()))
    }
}

impl HttpService for Wire {
    // Written as the macro of the trait writes it.
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let mib = u32::try_from(body.len() >> 20).unwrap_or(u32::MAX);
            let patience = ANSWER_PATIENCE + PATIENCE_PER_MIB.saturating_mul(mib);
            let request = hyper::Request::from_parts(head, Full::new(body));
            let answer = tokio::time::timeout(patience, self.0.send_whole(request)).await;
            answer_of(answer.unwrap_or_else(|_| {
                let why = format!("there is no answer after {patience:?}");
                Err(HttpFailure::Connection(why))
            }))
        })
    }
}

/// Where there is no answer, nobody knows whether the request was carried out: only what may be carried out twice is sent again.
fn answer_of(
    answer: Result<hyper::Response<Bytes>, HttpFailure>,
) -> Result<HttpResponse, HttpError> {
    let (kind, why) = match answer {
        Ok(response) => {
            let (head, body) = response.into_parts();
            return Ok(HttpResponse::from_parts(head, body.into()));
        }
        Err(HttpFailure::NoRequest(why)) => (HttpErrorKind::Unknown, why),
        Err(HttpFailure::Connection(why)) => (HttpErrorKind::Interrupted, why),
    };
    Err(HttpError::new(kind, io::Error::other(why)))
}
