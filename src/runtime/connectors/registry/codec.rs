//! [`Registered`]: a codec for topics whose schemas are at a registry.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::info;

use super::asked::{Asked, Step};
use super::client::{Registry, Schema};
use super::known::Known;
use crate::codec::framing::{FRAME_BYTES, frame, unframe};
use crate::codec::{Codec, CodecError, CodecId, CodecUse, SchemaCodec, SchemaFormat};
use crate::env::{Env, warn};

/// Values in front of which stands the id of their schema at a registry, as Confluent's serializers write them. It is for the topics of
/// jobs: the job gets it ready where it starts.
///
/// - **Writing**: the schema is registered under the subject where the job starts ([`must_exist`](Self::must_exist) only looks it up), and
///   all values get its id.
/// - **Reading**: each value is read by the schema that it was written with, as one of this schema. Whether that goes well with the newest
///   schema of the subject is found out where the job starts.
///
/// It is made by [`Registry::codec`].
pub struct Registered<F: SchemaFormat> {
    shared: Arc<Shared<F>>,
}

/// The way in which a schema comes to its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Register,
    Find,
}

struct Shared<F: SchemaFormat> {
    registry: Registry,
    subject: String,
    format: F,
    writing: Writing,
    /// The bytes in front of each value, once the id is known.
    frame: OnceLock<[u8; FRAME_BYTES]>,
    /// Set once the newest schema of the subject was found to be readable.
    is_readable: OnceLock<()>,
    /// The ways to read values, by their schemas' ids; or why they cannot be read.
    known: Known<Result<F::Reading, String>>,
    asked: Mutex<Asked>,
    env: Env,
}

impl<F: SchemaFormat> Clone for Registered<F> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<F: SchemaFormat> fmt::Debug for Registered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Registered");
        shown.field("registry", &self.shared.registry);
        shown.field("subject", &self.shared.subject).finish()
    }
}

impl<F: SchemaFormat> Registered<F> {
    pub(super) fn new(registry: Registry, subject: &str, format: F) -> Self {
        Self::with(registry, subject, format, Writing::Register)
    }

    fn with(registry: Registry, subject: &str, format: F, writing: Writing) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                subject: subject.to_owned(),
                format,
                writing,
                frame: OnceLock::new(),
                is_readable: OnceLock::new(),
                known: Known::default(),
                asked: Mutex::default(),
                env: Env::real(),
            }),
        }
    }

    /// As a sink's: does not register the schema, but refuses to start if the subject does not have it. For registries that take schemas
    /// from a release pipeline only.
    #[must_use]
    pub fn must_exist(self) -> Self {
        let shared = &self.shared;
        let (registry, format) = (shared.registry.clone(), shared.format.clone());
        Self::with(registry, &shared.subject, format, Writing::Find)
    }
}

impl<F: SchemaFormat> Shared<F> {
    /// Finds out the id that values are written with.
    fn prepare_writing(&self) -> Result<(), CodecError> {
        if self.frame.get().is_some() {
            return Ok(());
        }
        let (subject, text) = (self.subject.as_str(), self.format.schema());
        let id = match self.writing {
            Writing::Register => self.registry.register(subject, F::SCHEMA_TYPE, text)?,
            Writing::Find => {
                let found = self.registry.find(subject, F::SCHEMA_TYPE, text)?;
                found.ok_or_else(|| CodecError::RegistryRefused {
                    registry: self.registry.url().to_owned(),
                    why: format!("{subject} does not have the schema that the job writes: register it first, or leave out `must_exist`"),
                })?
            }
        };
        info!(subject, id, "values are written with this schema");
        // Another worker may have set the same.
        let _ = self.frame.set(frame(id));
        Ok(())
    }

    /// Finds out whether what is written now can be read.
    fn prepare_reading(&self) -> Result<(), CodecError> {
        if self.is_readable.get().is_some() {
            return Ok(());
        }
        if let Some(latest) = self.registry.latest(&self.subject)? {
            let (id, version) = (latest.id, latest.version);
            let reading = self.reading_of(&latest).map_err(|why| CodecError::Schema {
                format: F::SCHEMA_TYPE,
                why: format!(
                    "the newest values of {} (schema {}, version {}) could not be read: {why}",
                    self.subject,
                    id.unwrap_or_default(),
                    version.unwrap_or_default()
                ),
            })?;
            if let Some(id) = id {
                self.known.insert(id, Ok(reading));
            }
        }
        let _ = self.is_readable.set(());
        Ok(())
    }

    fn reading_of(&self, schema: &Schema) -> Result<F::Reading, String> {
        if schema.schema_type != F::SCHEMA_TYPE {
            return Err(format!(
                "its schema is of the type {}, and {} is read",
                schema.schema_type,
                F::SCHEMA_TYPE
            ));
        }
        self.format.reading(&schema.text).map_err(|e| e.to_string())
    }

    /// The registry's answer about an id.
    fn told(&self, id: u32, answer: Result<Schema, CodecError>) {
        let mut asked = self.asked.lock();
        match answer {
            Ok(schema) => {
                if self.known.insert(id, self.reading_of(&schema)) {
                    asked.told(id);
                    return;
                }
                let why = "the topic's values have more than 10,000 schemas".to_owned();
                asked.failed(id, why, self.env.clock.now());
            }
            Err(e) => {
                warn!(subject = %self.subject, id, "the schema could not be had: {e}");
                asked.failed(id, e.to_string(), self.env.clock.now());
            }
        }
    }
}

impl<F: SchemaFormat> Registered<F> {
    /// The error for a value whose schema is not known: it waits, or cannot be read.
    #[cold]
    fn unknown(&self, id: u32, bytes: &[u8]) -> CodecError {
        let shared = &self.shared;
        let step = shared.asked.lock().step(id, shared.env.clock.now());
        let refused = match step {
            Step::Wait => return CodecError::Awaited { id },
            Step::Refuse(why) => why,
            Step::Ask => {
                let this = Arc::clone(shared);
                let asking = shared
                    .registry
                    .schema_later(id, move |answer| this.told(id, answer));
                match asking {
                    Ok(()) => return CodecError::Awaited { id },
                    Err(e) => {
                        let now = shared.env.clock.now();
                        shared.asked.lock().failed(id, e.to_string(), now);
                        e.to_string()
                    }
                }
            }
        };
        unreadable::<F>(bytes, format!("its schema {id} is not known: {refused}"))
    }
}

fn unreadable<F: SchemaFormat>(bytes: &[u8], why: String) -> CodecError {
    CodecError::Decode {
        codec: F::SCHEMA_TYPE,
        length_bytes: bytes.len(),
        why,
    }
}

impl<T: Clone, F: SchemaCodec<T>> Codec<T> for Registered<F> {
    fn id(&self) -> CodecId {
        CodecId(9)
    }

    fn prepare(&self, use_of: CodecUse) -> Result<(), CodecError> {
        match use_of {
            CodecUse::Read => self.shared.prepare_reading(),
            CodecUse::Write => self.shared.prepare_writing(),
        }
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let Some(frame) = self.shared.frame.get() else {
            return Err(CodecError::Encode {
                codec: F::SCHEMA_TYPE,
                why: "the id of its schema is not known: call `prepare` first, as a job does for its topics".to_owned(),
            });
        };
        out.extend_from_slice(frame);
        self.shared.format.encode_value(value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let (id, value) = unframe(bytes)?;
        match self.shared.known.find(id) {
            Some(Ok(reading)) => {
                let decoded = self.shared.format.decode_value(reading, value);
                decoded.map(Cow::Owned)
            }
            Some(Err(why)) => Err(unreadable::<F>(bytes, format!("its schema {id}: {why}"))),
            None => Err(self.unknown(id, bytes)),
        }
    }
}
