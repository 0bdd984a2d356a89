//! Subscriptions by regular expression (KIP-848): which topics an expression of RE2 names.
//!
//! Matching takes time linear in the name, and what an expression compiles to is bounded, so that no member can make the
//! coordinator work without end (D13). An expression names whole topics, the coordinators' own among them, as in Kafka.

use std::collections::{BTreeMap, BTreeSet};

use regex::bytes::{Regex, RegexBuilder};

use super::ConsumerGroup;
use super::roster::Roster;
use crate::coordinator::group::topics::Topics;
use crate::protocol::ErrorCode;
use crate::types::TopicName;

/// The longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 4096;
/// The memory that a compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of groups.
const NESTING_MAX: u32 = 100;
/// Most topics that an expression may name: one group's records must fit one batch of the journal.
const NAMED_COUNT_MAX: usize = 10_000;

/// The expressions of a group's members, compiled. Derived: made again after a restart.
#[derive(Debug, Clone, Default)]
pub(super) struct Expressions(BTreeMap<String, Regex>);

impl Expressions {
    fn compiled(&mut self, expression: &str) -> Result<Regex, ErrorCode> {
        if let Some(compiled) = self.0.get(expression) {
            return Ok(compiled.clone());
        }
        let compiled = compile(expression)?;
        self.0.insert(expression.to_owned(), compiled.clone());
        Ok(compiled)
    }
}

/// Names of topics are ASCII, and so are RE2's classes (`\w`, `\d`).
fn compile(expression: &str) -> Result<Regex, ErrorCode> {
    let build = |expression: &str| {
        RegexBuilder::new(expression)
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build()
            .map_err(|_| ErrorCode::InvalidRegularExpression)
    };
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(ErrorCode::InvalidRegularExpression);
    }
    // Valid by itself, so that no parenthesis of it closes the group around it.
    build(expression)?;
    build(&format!(r"\A(?:{expression})\z"))
}

impl ConsumerGroup {
    /// Brings what the members' expressions name up to date: all of them if topics changed since the last time, else
    /// those that are new. What `hidden` holds, the member that asks may not know of.
    pub(super) fn resolve(
        &mut self,
        after: &mut Roster,
        hidden: &[TopicName],
        topics: &Topics,
    ) -> Result<(), ErrorCode> {
        let members = after.members.values();
        let wanted = members.filter_map(|it| it.record.subscribed_topic_regex.clone());
        let wanted: BTreeSet<String> = wanted.collect();
        self.expressions.0.retain(|it, _| wanted.contains(it));
        after.expressions.retain(|it, _| wanted.contains(it));
        let is_current = self.topics_version == Some(topics.version());
        let is_named = |it: &String| is_current && after.expressions.contains_key(it);
        let unnamed: Vec<String> = wanted.into_iter().filter(|it| !is_named(it)).collect();
        if unnamed.is_empty() {
            return Ok(());
        }
        let hidden: BTreeSet<&TopicName> = hidden.iter().collect();
        for expression in unnamed {
            let compiled = self.expressions.compiled(&expression)?;
            let names = topics
                .names()
                .filter(|name| !hidden.contains(name))
                .filter(|name| compiled.is_match(name.as_str().as_bytes()));
            let named: BTreeSet<TopicName> = names.take(NAMED_COUNT_MAX + 1).cloned().collect();
            if named.len() > NAMED_COUNT_MAX {
                return Err(ErrorCode::InvalidRequest);
            }
            after.expressions.insert(expression, named);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(expression: &str, topic: &str) -> bool {
        compile(expression).unwrap().is_match(topic.as_bytes())
    }

    #[test]
    fn an_expression_names_whole_topics() {
        assert!(names("a|ab", "ab"));
        assert!(names(r"metrics-\d+", "metrics-17"));
        assert!(!names(r"metrics-\d+", "metrics-17x"));
        assert!(!names("b", "abc"));
        assert!(names("(?i)TOPIC[[:digit:]]", "topic7"));
        assert!(names(".*", "anything.at_all-1"));
    }

    #[test]
    fn what_is_no_expression_of_re2_or_too_large_is_refused() {
        let deep = format!("{}a{}", "(".repeat(500), ")".repeat(500));
        let long = "a".repeat(EXPRESSION_BYTES_MAX + 1);
        let large = "(a{1000}){1000}";
        for wrong in [
            "(", "a)(b", "a)|(?:b", "[", "*", "(?=a)", r"(a)\1", large, &deep, &long,
        ] {
            let error = compile(wrong).err();
            assert_eq!(
                error,
                Some(ErrorCode::InvalidRegularExpression),
                "{wrong:.40}"
            );
        }
    }

    #[test]
    fn an_expression_at_which_others_backtrack_for_ever_is_matched_at_once() {
        // Exponential for a backtracking matcher: this test would not end.
        let topic = "a".repeat(240);
        assert!(!names("(a*)*(a*)*(a|aa)+b", &topic));
    }
}
