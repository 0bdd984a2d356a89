//! Questions and answers as JSON: for programs that do not have the job's types. Pure, but for the reads.
//!
//! A question comes as the parameters of a URL, in which keys and places are text, or as an object of JSON with the same names.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Queries, QueryError, View};
use crate::codec::CodecError;
use crate::codec::json::from_text;
use crate::runtime::task::committed::{Face, Kind};
use crate::runtime::task::ordered_store::{is_in_order_of, set_places};
use crate::runtime::task::timed_row::{OWN_ROW, key_row, row_at, time_of_row, value_of_row};
use crate::state::{Direction, HashedKey, KeyRange, RangeOf, put_prefix};
use crate::types::Timestamp;

/// The rows of an answer, where nobody says how many.
const LIMIT: usize = 100;
/// The most rows of an answer.
const LIMIT_MAX: usize = 10_000;

/// A key or a place as it came.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Given {
    Json(Value),
    #[serde(skip)]
    Text(String),
}

impl Given {
    /// The bytes that it stands for.
    fn bytes(
        &self,
        from_json: fn(&Value) -> Result<Vec<u8>, CodecError>,
    ) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Json(json) => from_json(json),
            Self::Text(text) => from_text(text, from_json),
        }
    }

    fn time(&self) -> Result<Timestamp, Refused> {
        let millis = match self {
            Self::Json(json) => json.as_i64(),
            Self::Text(text) => text.parse().ok(),
        };
        millis.map(Timestamp).ok_or_else(|| {
            Refused("a time is given in milliseconds since 1970, as a whole number".to_owned())
        })
    }
}

/// One read of a store.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Question {
    pub(super) store: String,
    /// The windows that are open, instead of the rows.
    pub(super) windows: bool,
    pub(super) key: Option<Given>,
    /// Several keys.
    pub(super) keys: Vec<Given>,
    /// The place of a value in a store in order.
    pub(super) place: Option<Given>,
    /// The time of a value in a store with time.
    pub(super) time: Option<Given>,
    /// The time of which the value of a key is asked, in a store of its versions.
    pub(super) as_of: Option<Given>,
    /// Where a range of places or times begins.
    pub(super) from: Option<Given>,
    /// Before which it ends.
    pub(super) to: Option<Given>,
    /// The key behind which a page of rows begins.
    pub(super) after: Option<Given>,
    pub(super) limit: Option<usize>,
    /// The last rows of a range first.
    pub(super) reverse: bool,
}

/// A question that nobody can answer as it is, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl From<Refused> for QueryError {
    fn from(refused: Refused) -> Self {
        Self::Malformed { why: refused.0 }
    }
}

impl Question {
    /// Takes one parameter of a URL; `false` if it is none of a question.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, Refused> {
        let given = || Some(Given::Text(value.to_owned()));
        match name {
            "key" => self.keys.push(Given::Text(value.to_owned())),
            "place" => self.place = given(),
            "time" => self.time = given(),
            "as_of" => self.as_of = given(),
            "from" => self.from = given(),
            "to" => self.to = given(),
            "after" => self.after = given(),
            "limit" => {
                let limit = value
                    .parse()
                    .map_err(|_| Refused(format!("limit={value} is not a number of rows")))?;
                self.limit = Some(limit);
            }
            "reverse" => self.reverse = matches!(value, "" | "true" | "1"),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn limit(&self) -> Result<usize, Refused> {
        match self.limit.unwrap_or(LIMIT) {
            limit @ 1..=LIMIT_MAX => Ok(limit),
            limit => Err(Refused(format!(
                "limit={limit} is out of range: one answer has 1 to {LIMIT_MAX} rows; ask for more with another question, behind the \
                 last row of this one"
            ))),
        }
    }

    fn times(&self) -> Result<Range<Timestamp>, Refused> {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => Ok(from.time()?..to.time()?),
            _ => Err(Refused(
                "times are given as `from` and `to`, in milliseconds since 1970".to_owned(),
            )),
        }
    }

    /// The only key.
    fn one_key(&self) -> Result<&Given, Refused> {
        match (&self.key, &*self.keys) {
            (Some(key), []) | (None, [key]) => Ok(key),
            _ => Err(Refused("this needs one `key`".to_owned())),
        }
    }
}

/// A question that was looked at: the store as it is kept, and its face.
pub(super) struct Checked<'q> {
    question: &'q Question,
    store: Arc<str>,
    face: &'q Face,
    /// Beside a store of versions: the store that has the beginning of their history.
    history: Option<Arc<str>>,
}

impl Queries {
    /// Finds the store of a question.
    pub(super) fn check<'q>(&'q self, question: &'q Question) -> Result<Checked<'q>, QueryError> {
        let (store, face) = self.face(&question.store)?;
        let schema = self.declared.stores.get(&*store);
        let is_by_time = schema.is_some_and(|it| is_in_order_of::<Timestamp>(it.key.as_str()));
        let beside = self.face(&format!("{}-times", question.store)).ok();
        let beside = beside.filter(|(_, face)| is_by_time && matches!(face.kind, Kind::Timed));
        Ok(Checked {
            history: beside.map(|(name, _)| name),
            question,
            store,
            face,
        })
    }
}

impl Checked<'_> {
    /// The answer, without its epoch.
    pub(super) fn answer(&self, view: &View<'_>) -> Result<Map<String, Value>, QueryError> {
        let question = self.question;
        let answer = match (question.windows, self.face.kind) {
            (false, _) if question.as_of.is_some() => self.as_of(view)?,
            (true, _) => json!({"windows": self.windows(view)?}),
            (false, Kind::Values) => self.values(view)?,
            (false, Kind::Ordered(_)) => self.ordered(view)?,
            (false, Kind::Timed) => self.timed(view)?,
        };
        match answer {
            Value::Object(answer) => Ok(answer),
            other => Ok(Map::from_iter([("value".to_owned(), other)])),
        }
    }

    fn key_bytes(&self, key: &Given) -> Result<Vec<u8>, CodecError> {
        key.bytes(self.face.key.from_json)
    }

    /// The value of a row, or null.
    fn value(&self, view: &View<'_>, row: HashedKey<'_>) -> Result<Value, QueryError> {
        let value = view.value(&self.store, row)?;
        let shown = value
            .map(|bytes| self.show_value(&bytes, view))
            .transpose()?;
        Ok(shown.flatten().unwrap_or_default())
    }

    /// A stored value; `None` for a row that is none.
    fn show_value(&self, bytes: &[u8], view: &View<'_>) -> Result<Option<Value>, CodecError> {
        let stored = match self.face.kind {
            Kind::Timed => value_of_row(bytes),
            Kind::Values | Kind::Ordered(_) => Some(bytes),
        };
        let versions = view.versions_of(&self.store);
        let show = |value: &[u8]| (self.face.value.to_json)(&versions.as_of_now(value)?);
        stored.map(show).transpose()
    }

    /// The answer of `read` for the key, or for each of several.
    fn of_keys(
        &self,
        read: impl Fn(&[u8]) -> Result<Value, QueryError>,
    ) -> Result<Value, QueryError> {
        let read = |key: &Given| read(&self.key_bytes(key)?);
        match (&self.question.key, &*self.question.keys) {
            (Some(key), []) | (None, [key]) => Ok(json!({"value": read(key)?})),
            (None, []) => Err(Refused("say whose value: one `key`, or several".to_owned()).into()),
            (None, keys) => {
                let values: Result<Vec<Value>, QueryError> = keys.iter().map(read).collect();
                Ok(json!({"values": values?}))
            }
            (Some(_), _) => Err(Refused("give `key` or `keys`, not both".to_owned()).into()),
        }
    }

    fn values(&self, view: &View<'_>) -> Result<Value, QueryError> {
        let question = self.question;
        if question.key.is_some() || !question.keys.is_empty() {
            return self.of_keys(|key| self.value(view, HashedKey::new(key)));
        }
        let after = question.after.as_ref();
        let after = after.map(|key| self.key_bytes(key)).transpose()?;
        let mut rows = Vec::new();
        let limit = question.limit()?;
        view.visit_page(&self.store, after.as_deref(), limit, &mut |key, value| {
            let (key, value) = ((self.face.key.to_json)(key)?, self.show_value(value, view)?);
            rows.push(json!({"key": key, "value": value}));
            Ok(())
        })?;
        Ok(json!({"rows": rows}))
    }

    fn ordered(&self, view: &View<'_>) -> Result<Value, QueryError> {
        let Kind::Ordered(places) = self.face.kind else {
            unreachable!("it is asked of stores in order")
        };
        let question = self.question;
        if let Some(place) = &question.place {
            let place = place.bytes(places.from_json)?;
            return self.of_keys(|key| {
                let mut row = Vec::new();
                put_prefix(key, &mut row);
                row.extend_from_slice(&place);
                self.value(view, HashedKey::beside(&row, key))
            });
        }
        let key = self.key_bytes(question.one_key()?)?;
        let (mut prefix, mut bounds) = (Vec::new(), KeyRange::default());
        put_prefix(&key, &mut prefix);
        bounds.set_prefix(&prefix);
        match (&question.from, &question.after) {
            (Some(from), None) => bounds.from.extend(from.bytes(places.from_json)?),
            (None, Some(after)) => {
                bounds.from.extend(after.bytes(places.from_json)?);
                bounds.from.push(0);
            }
            (None, None) => {}
            (Some(_), Some(_)) => {
                return Err(Refused("give `from` or `after`, not both".to_owned()).into());
            }
        }
        if let Some(to) = &question.to {
            bounds.to.clone_from(&prefix);
            bounds.to.extend(to.bytes(places.from_json)?);
        }
        let partition = view.state_partition(&HashedKey::new(&key));
        let range = RangeOf {
            places: &[(partition, &bounds.from)],
            to: Some(&bounds.to),
            direction: match question.reverse {
                true => Direction::Backward,
                false => Direction::Forward,
            },
            rows_max: question.limit()?,
        };
        let mut rows = Vec::new();
        view.visit(&self.store, range, &mut |row, value| {
            let place = (places.to_json)(row.get(prefix.len()..).unwrap_or_default())?;
            rows.push(json!({"place": place, "value": self.show_value(value, view)?}));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(json!({"rows": rows}))
    }

    /// The version of a key, or of each of several, that was valid at a time.
    fn as_of(&self, view: &View<'_>) -> Result<Value, QueryError> {
        let question = self.question;
        let (Some(history), Some(as_of)) = (&self.history, &question.as_of) else {
            let why = "`as_of` is asked of a store of versions, which `versioned` keeps: the kind of each store is at /".to_owned();
            return Err(Refused(why).into());
        };
        let time = as_of.time()?;
        self.of_keys(|key| {
            let (mut prefix, mut bounds) = (Vec::new(), KeyRange::default());
            put_prefix(key, &mut prefix);
            set_places(&prefix, &..=time, &mut bounds);
            let partition = view.state_partition(&HashedKey::new(key));
            let range = RangeOf {
                places: &[(partition, &bounds.from)],
                to: Some(&bounds.to),
                direction: Direction::Backward,
                rows_max: 1,
            };
            let mut found = None;
            view.visit(&self.store, range, &mut |_, value| {
                found = Some(self.show_value(value, view)?.unwrap_or_default());
                Ok(ControlFlow::Continue(()))
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
            let begin = view.value(history, HashedKey::beside(&OWN_ROW, key))?;
            match begin.as_deref().and_then(time_of_row) {
                Some(begin) if time < begin => Err(QueryError::BeforeHistory {
                    store: question.store.clone(),
                    time,
                    begin,
                }),
                _ => Ok(Value::Null),
            }
        })
    }

    fn timed(&self, view: &View<'_>) -> Result<Value, QueryError> {
        let question = self.question;
        let time = question.time.as_ref().map(Given::time).transpose()?;
        if question.key.is_some() || !question.keys.is_empty() {
            return self.of_keys(|key| {
                let mut row = Vec::new();
                match time {
                    Some(time) => row_at(&mut row, key, time),
                    None => key_row(&mut row, key),
                }
                self.value(view, HashedKey::beside(&row, key))
            });
        }
        let limit = question.limit()?;
        let mut found = Vec::new();
        view.visit_times(
            &self.store,
            &question.times()?,
            limit,
            &mut |time, key, value| {
                if let Some(value) = self.show_value(value, view)? {
                    found.push((time, (self.face.key.to_json)(key)?, value));
                }
                Ok(())
            },
        )?;
        found.sort_by_key(|(time, ..)| *time);
        found.truncate(limit);
        let rows = found.into_iter();
        let rows =
            rows.map(|(time, key, value)| json!({"time": time.0, "key": key, "value": value}));
        Ok(json!({"rows": rows.collect::<Vec<_>>()}))
    }

    fn windows(&self, view: &View<'_>) -> Result<Vec<Value>, QueryError> {
        let question = self.question;
        let Some(windows) = &self.face.windows else {
            return Err(QueryError::NoWindows {
                store: question.store.clone(),
            });
        };
        let key = self.key_bytes(question.one_key()?)?;
        let found = (windows.show)(view, &self.store, &key, &question.times()?)?;
        let shown = found.into_iter().map(
            |(window, state)| json!({"start": window.start.0, "end": window.end.0, "value": state}),
        );
        Ok(shown.collect())
    }
}
