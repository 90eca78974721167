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

/// A column of prose is not made narrower than this, so that its words can be guessed.
const PROSE_COLUMNS_MIN: usize = 12;

/// Print rows under titles. Columns that are empty in all rows are left out; in a terminal the
/// columns of prose are cut to what fits, the widest first, or else the last one.
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
    let prose: Vec<bool> = used.iter().map(|c| c.2 == Form::Prose).collect();
    let widths = fitted(widths(&titles, &cells), &prose, width);
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
    let widths = widths(titles, rows);
    let head = aligned(titles, &widths, |_, text| text.to_owned());
    let head = out.paint.dim(&head);
    out.line(&head)?;
    for row in rows {
        out.line(&aligned(row, &widths, |_, text| text.to_owned()))?;
    }
    Ok(())
}

fn widths(titles: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = titles.iter().map(|t| columns(t)).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(text));
        }
    }
    widths
}

/// The widths within a terminal of `total` columns.
fn fitted(mut widths: Vec<usize>, prose: &[bool], total: usize) -> Vec<usize> {
    loop {
        let taken = widths
            .iter()
            .fold(0, |sum: usize, w| sum.saturating_add(w + 2));
        let over = taken.saturating_sub(2).saturating_sub(total);
        let narrowable = |i: usize, width: usize| {
            let may = prose.get(i) == Some(&true) || i + 1 == prose.len();
            may && width > PROSE_COLUMNS_MIN
        };
        let mut candidates: Vec<(usize, usize)> = widths
            .iter()
            .enumerate()
            .filter_map(|(i, width)| narrowable(i, *width).then_some((*width, i)))
            .collect();
        candidates.sort_unstable();
        let Some((widest, at)) = candidates.pop().filter(|_| over > 0) else {
            return widths;
        };
        // Down to the next widest, so that none is cut while a wider one is whole.
        let next = candidates
            .last()
            .map_or(PROSE_COLUMNS_MIN, |(width, _)| *width);
        let floor = if next == widest { widest - 1 } else { next };
        if let Some(width) = widths.get_mut(at) {
            *width = floor.max(widest.saturating_sub(over));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_gives_way_to_a_narrow_terminal_and_facts_do_not() {
        let widths = fitted(vec![4, 30, 20, 200], &[false, true, false, true], 80);
        assert_eq!(widths, [4, 25, 20, 25]);
        assert_eq!(widths.iter().sum::<usize>() + 6, 80);
        let too_narrow = fitted(vec![40, 30, 9], &[false, true, false], 20);
        assert_eq!(too_narrow, [40, 12, 9], "prose keeps its least width");
        let wide = fitted(vec![4, 3_000_000], &[false, true], usize::MAX);
        assert_eq!(wide, [4, 3_000_000], "no terminal, no cut");
    }
}
