//! `usage`: sums as a table, one row a group where that hides nothing.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::forms::Form;
use super::out::Out;
use super::table::{self, Column};

/// Sums that add up when two rows become one.
const ADDED: [&str; 8] = [
    "attempts",
    "unknown",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
];

/// Print the sums by this dimension.
pub(super) fn print(
    out: &mut Out,
    by: Option<&str>,
    rows: &[Value],
    now: DateTime<Utc>,
) -> io::Result<()> {
    let title = match by {
        Some("task") => "TASK",
        Some("agent") => "AGENT",
        Some("model") => "MODEL",
        Some("project") => "PROJECT",
        _ => "DAY",
    };
    let columns = [
        Column(title, "key", Form::Text),
        Column("ATTEMPTS", "attempts", Form::Count),
        Column("UNKNOWN", "unknown", Form::Count),
        Column("INPUT", "input_tokens", Form::Count),
        Column("CACHED", "cache_read_tokens", Form::Count),
        Column("WRITTEN", "cache_write_tokens", Form::Count),
        Column("OUTPUT", "output_tokens", Form::Count),
        Column("REASONING", "reasoning_tokens", Form::Count),
        Column("TOTAL", "total_tokens", Form::Count),
        Column("NO COST", "without_cost", Form::Count),
        Column("COST", "cost", Form::Text),
        Column("IN", "currency", Form::Text),
    ];
    table::print(out, &columns, &by_key(rows), now)
}

/// One row a key: attempts that told no cost are counted beside the cost of the others. A key with two
/// currencies keeps its rows, for nobody can say to which of them those belong.
fn by_key(rows: &[Value]) -> Vec<Value> {
    let priced = |row: &Value| !row["currency"].is_null();
    let prices = |row: &Value| {
        let same = rows.iter().filter(|other| other["key"] == row["key"]);
        same.filter(|other| priced(other)).count()
    };
    let mut told = Vec::new();
    for row in rows {
        // It is counted in the row that has the cost.
        if !priced(row) && prices(row) == 1 {
            continue;
        }
        let mut row = row.clone();
        if priced(&row) && prices(&row) == 1 {
            let without = rows
                .iter()
                .find(|other| other["key"] == row["key"] && !priced(other));
            let without = without.cloned().unwrap_or(Value::Null);
            for name in ADDED {
                let parts = [&row[name], &without[name]].map(Value::as_i64);
                let known = parts.iter().flatten().copied();
                row[name] = match parts {
                    [None, None] => Value::Null,
                    _ => json!(known.fold(0, i64::saturating_add)),
                };
            }
            row["without_cost"] = without["attempts"].clone();
        }
        told.push(row);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_without_a_cost_are_a_column_unless_it_is_not_known_of_which_currency() {
        let row = |key: &str, attempts: i64, tokens: Option<i64>, currency: Option<&str>| {
            json!({
                "key": key, "attempts": attempts, "unknown": i64::from(tokens.is_none()),
                "total_tokens": tokens, "input_tokens": null, "currency": currency,
                "cost": currency.map(|_| "1.5"),
            })
        };
        let rows = [
            row("a", 2, Some(10), Some("USD")),
            row("b", 1, Some(1), Some("USD")),
            row("a", 1, None, None),
            row("b", 1, Some(2), Some("EUR")),
            row("b", 1, None, None),
            row("c", 3, None, None),
        ];
        let told = by_key(&rows);
        let keys: Vec<&Value> = told.iter().map(|row| &row["key"]).collect();
        assert_eq!(keys, ["a", "b", "b", "b", "c"]);
        let names = [
            "attempts",
            "unknown",
            "total_tokens",
            "without_cost",
            "input_tokens",
        ];
        let a = names.map(|name| &told[0][name]);
        assert_eq!(
            a,
            [&json!(3), &json!(1), &json!(10), &json!(1), &Value::Null]
        );
        assert_eq!(told[1], row("b", 1, Some(1), Some("USD")));
        assert_eq!(told[4], row("c", 3, None, None));
    }
}
