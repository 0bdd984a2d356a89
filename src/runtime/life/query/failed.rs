//! A question over HTTP that is not answered.

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::QueryError;
use crate::codec::CodecError;

/// A question that was not answered: the status, and what to tell.
pub(super) struct Failed {
    pub(super) status: StatusCode,
    pub(super) told: Map<String, Value>,
}

impl Failed {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        let told = Map::from_iter([("error".to_owned(), Value::String(why.into()))]);
        Self { status, told }
    }

    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Malformed { .. }
            | QueryError::TooMany { .. }
            | QueryError::BeforeHistory { .. }
            | QueryError::Codec(CodecError::Encode { .. }) => StatusCode::BAD_REQUEST,
            QueryError::UnknownStore { .. }
            | QueryError::WrongType { .. }
            | QueryError::NoWindows { .. }
            | QueryError::NotRead { .. } => StatusCode::NOT_FOUND,
            QueryError::Elsewhere { .. } => StatusCode::MISDIRECTED_REQUEST,
            QueryError::Overtaken { .. } | QueryError::Ended { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            QueryError::Codec(_) | QueryError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut failed = Self::new(status, error.to_string());
        if let QueryError::Elsewhere {
            instance,
            state_partition,
            ..
        } = error
        {
            let told = [
                ("instance", Value::from(instance)),
                ("state_partition", Value::from(state_partition)),
            ];
            failed
                .told
                .extend(told.map(|(name, value)| (name.to_owned(), value)));
        }
        failed
    }
}
