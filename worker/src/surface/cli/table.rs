//! Lists as plain columns.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::forms::{Form, show};
use super::out::{Out, columns, cut};

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column(
    /// Its title.
    pub(crate) &'static str,
    /// The field it shows.
    pub(crate) &'static str,
    /// How.
    pub(crate) Form,
);

/// Print rows under titles. Columns that are empty in all rows are left out; in a terminal the
/// last column is cut to what fits.
pub(crate) fn print(
    out: &mut Out,
    all: &[Column],
    rows: &[Value],
    now: DateTime<Utc>,
) -> io::Result<()> {
    let cell = |row: &Value, column: &Column| {
        let field = row.get(column.1).unwrap_or(&Value::Null);
        show(field, column.2, now)
    };
    let used: Vec<&Column> = all
        .iter()
        .filter(|column| rows.iter().any(|row| !cell(row, column).is_empty()))
        .collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| used.iter().map(|column| cell(row, column)).collect())
        .collect();
    let titles: Vec<String> = used.iter().map(|c| c.0.to_owned()).collect();
    let width = out.width.unwrap_or(usize::MAX);
    let widths = widths(&titles, &cells, width);
    let head = aligned(&titles, &widths, |_, text| text.to_owned());
    let head = out.paint.dim(&head);
    out.line(&head)?;
    for row in &cells {
        let paint = out.paint;
        let text = aligned(row, &widths, |i, text| match used[i].2 {
            Form::State => paint.state(text),
            Form::Id => paint.bold(text),
            _ => text.to_owned(),
        });
        out.line(&text)?;
    }
    Ok(())
}

/// Plain rows under plain titles, as of an SQL result.
pub(crate) fn plain(out: &mut Out, titles: &[String], rows: &[Vec<String>]) -> io::Result<()> {
    let widths = widths(titles, rows, usize::MAX);
    let head = aligned(titles, &widths, |_, text| text.to_owned());
    let head = out.paint.dim(&head);
    out.line(&head)?;
    for row in rows {
        out.line(&aligned(row, &widths, |_, text| text.to_owned()))?;
    }
    Ok(())
}

fn widths(titles: &[String], rows: &[Vec<String>], total: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = titles.iter().map(|t| columns(t)).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(text));
        }
    }
    if let Some((last, others)) = widths.split_last_mut() {
        let taken: usize = others.iter().map(|w| w + 2).sum();
        *last = (*last).min(total.saturating_sub(taken).max(12));
    }
    widths
}

fn aligned(row: &[String], widths: &[usize], style: impl Fn(usize, &str) -> String) -> String {
    let mut line = String::new();
    for (i, (text, width)) in row.iter().zip(widths).enumerate() {
        let text = cut(text, *width);
        let gap = width.saturating_sub(columns(&text));
        line.push_str(&style(i, &text));
        if i + 1 < widths.len() {
            line.push_str(&" ".repeat(gap + 2));
        }
    }
    line.trim_end().to_owned()
}
