//! The script: where it is in a request, which element it is the turn of.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::format::{Spoken, Who};

/// How often each element was asked for.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<(&'static str, String, usize), usize>>);

impl Counts {
    /// This request's number at its element, from 0.
    fn next(&self, format: &'static str, script: &str, k: usize) -> usize {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((format, script.to_owned(), k)).or_default();
        *count += 1;
        *count - 1
    }
}

/// The element that answers a request.
pub(crate) struct Turn {
    pub(crate) k: usize,
    /// Requests of this element before this one.
    pub(crate) nth: usize,
    pub(crate) element: Value,
}

/// Which element it is the turn of; an error is a fault of the script.
pub(crate) fn turn(
    format: &'static str,
    spoken: &[Spoken],
    counts: &Counts,
) -> Result<Turn, String> {
    let found = spoken.iter().enumerate().rev().find_map(|(at, one)| {
        let line = match one.who {
            Who::User => one.text.lines().rev().find(|l| l.starts_with("SCRIPT ")),
            Who::Assistant | Who::Tool => None,
        };
        line.map(|line| (at, line))
    });
    let Some((at, line)) = found else {
        return Ok(Turn {
            k: 0,
            nth: 0,
            element: json!({}),
        });
    };
    let script: Value = serde_json::from_str(&line["SCRIPT ".len()..])
        .map_err(|e| format!("the script is not JSON: {e}: {line}"))?;
    let elements = script.as_array().ok_or("the script is no array")?;
    let k = answers(&spoken[at..]);
    let nth = counts.next(format, line, k);
    let (element, nth) = match elements.get(k) {
        None => (json!({}), nth),
        Some(Value::Array(attempts)) => {
            let last = attempts
                .len()
                .checked_sub(1)
                .ok_or("no attempts in a list")?;
            let at = nth.min(last);
            (attempts[at].clone(), nth - at)
        }
        Some(one) => (one.clone(), nth),
    };
    if !element.is_object() {
        return Err(format!("an element of the script is no object: {element}"));
    }
    Ok(Turn { k, nth, element })
}

/// Answers of the assistant; one answer may be several items in a row.
fn answers(spoken: &[Spoken]) -> usize {
    let mut before = false;
    let mut count = 0;
    for one in spoken {
        let now = matches!(one.who, Who::Assistant);
        if now && !before {
            count += 1;
        }
        before = now;
    }
    count
}
