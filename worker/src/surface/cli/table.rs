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

/// What is said of rows below their table, in full, since somebody acts on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Below {
    /// What it is about.
    pub(crate) title: &'static str,
    /// The fields that say of which row.
    pub(crate) of: &'static [(&'static str, Form)],
    /// The field that says it.
    pub(crate) text: &'static str,
}

/// A column of prose is not made narrower than this, so that its words can be guessed.
const PROSE_COLUMNS_MIN: usize = 12;

/// One that is read to its end has room for a few words in a line.
const WHOLE_COLUMNS_MIN: usize = 24;

/// Print rows under titles. Columns that are empty in all rows are left out; in a terminal the
/// columns of prose are cut to what fits, the widest first, or else the last one. What somebody acts on
/// goes on in the next line instead.
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
    let last = used.len().saturating_sub(1);
    let least = used.iter().enumerate().map(|(i, column)| match column.2 {
        Form::Whole => Some(WHOLE_COLUMNS_MIN),
        Form::Prose => Some(PROSE_COLUMNS_MIN),
        _ => (i == last).then_some(PROSE_COLUMNS_MIN),
    });
    let least: Vec<Option<usize>> = least.collect();
    let widths = fitted(widths(&titles, &cells), &least, width);
    let head = aligned(&titles, &widths, |_, text| text.to_owned());
    let head = out.paint.dim(&head);
    out.line(&head)?;
    for row in &cells {
        let paint = out.paint;
        for line in lines(row, &widths, |i| used[i].2 == Form::Whole) {
            let text = aligned(&line, &widths, |i, text| match used[i].2 {
                Form::State => paint.state(text),
                Form::Id => paint.bold(text),
                _ => text.to_owned(),
            });
            out.line(&text)?;
        }
    }
    Ok(())
}

/// Print what is said below the table of these rows. What is said of several is said once.
pub(crate) fn below(
    out: &mut Out,
    below: &Below,
    rows: &[Value],
    now: DateTime<Utc>,
) -> io::Result<()> {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let text = show(&row[below.text], Form::Prose, now);
        let parts = below
            .of
            .iter()
            .map(|(field, form)| show(&row[*field], *form, now));
        let of = parts.collect::<Vec<_>>().join(" ");
        match said.iter_mut().find(|(known, _)| *known == text) {
            _ if text.is_empty() => {}
            Some((_, all)) => all.push(of),
            None => said.push((text, vec![of])),
        }
    }
    if said.is_empty() {
        return Ok(());
    }
    let title = out.paint.dim(below.title);
    out.line(&format!("\n{title}"))?;
    let width = out.width.unwrap_or(usize::MAX).saturating_sub(4);
    for (text, of) in said {
        let lines = filled(&format!("{}: {text}", of.join(", ")), width);
        for (n, line) in lines.iter().enumerate() {
            let indent = if n == 0 { "  " } else { "    " };
            out.line(&format!("{indent}{line}"))?;
        }
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

/// The widths within a terminal of `total` columns. A column with a least width may be made narrower.
fn fitted(mut widths: Vec<usize>, least: &[Option<usize>], total: usize) -> Vec<usize> {
    loop {
        let taken = widths
            .iter()
            .fold(0, |sum: usize, w| sum.saturating_add(w + 2));
        let over = taken.saturating_sub(2).saturating_sub(total);
        let room = |(i, width): (usize, &usize)| {
            let least = least.get(i).copied().flatten()?;
            (*width > least).then_some((*width, i, least))
        };
        let mut candidates: Vec<(usize, usize, usize)> =
            widths.iter().enumerate().filter_map(room).collect();
        candidates.sort_unstable();
        let Some((widest, at, least)) = candidates.pop().filter(|_| over > 0) else {
            return widths;
        };
        // Down to the next widest, so that none is cut while a wider one is whole.
        let next = candidates.last().map_or(least, |(width, _, _)| *width);
        let floor = if next == widest { widest - 1 } else { next };
        if let Some(width) = widths.get_mut(at) {
            *width = floor.max(least).max(widest.saturating_sub(over));
        }
    }
}

/// A row as the lines that it takes: what is not whole is cut to one.
fn lines(row: &[String], widths: &[usize], whole: impl Fn(usize) -> bool) -> Vec<Vec<String>> {
    let cells = row.iter().zip(widths).enumerate();
    let cells = cells.map(|(i, (text, width))| match whole(i) {
        true => filled(text, *width),
        false => vec![cut(text, *width)],
    });
    let cells: Vec<Vec<String>> = cells.collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let nth = |n: usize| {
        let line = cells
            .iter()
            .map(|cell| cell.get(n).cloned().unwrap_or_default());
        line.collect()
    };
    (0..height).map(nth).collect()
}

/// The words of a text in lines of so many columns. No word is broken: it may be one to copy.
fn filled(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for word in text.split(' ') {
        let more = columns(word);
        if taken > 0 && taken + 1 + more > width {
            lines.push(String::new());
            taken = 0;
        }
        if let Some(line) = lines.last_mut() {
            if taken > 0 {
                line.push(' ');
                taken += 1;
            }
            line.push_str(word);
            taken += more;
        }
    }
    lines
}

fn aligned(row: &[String], widths: &[usize], style: impl Fn(usize, &str) -> String) -> String {
    let mut line = String::new();
    for (i, (text, width)) in row.iter().zip(widths).enumerate() {
        let gap = width.saturating_sub(columns(text));
        line.push_str(&style(i, text));
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
        let prose = Some(PROSE_COLUMNS_MIN);
        let widths = fitted(vec![4, 30, 20, 200], &[None, prose, None, prose], 80);
        assert_eq!(widths, [4, 25, 20, 25]);
        assert_eq!(widths.iter().sum::<usize>() + 6, 80);
        let too_narrow = fitted(vec![40, 30, 9], &[None, prose, prose], 20);
        assert_eq!(too_narrow, [40, 12, 9], "prose keeps its least width");
        let wide = fitted(vec![4, 3_000_000], &[None, prose], usize::MAX);
        assert_eq!(wide, [4, 3_000_000], "no terminal, no cut");
        let both = fitted(vec![50, 50], &[Some(WHOLE_COLUMNS_MIN), prose], 40);
        assert_eq!(both, [24, 14], "each keeps its own");
    }

    #[test]
    fn a_text_that_is_acted_on_goes_on_in_the_next_line_with_its_words_whole() {
        let long = "run /a/path/that/is/longer/than/a/line now";
        assert_eq!(
            filled(long, 10),
            ["run", "/a/path/that/is/longer/than/a/line", "now"]
        );
        assert_eq!(filled("日本 語 x", 6), ["日本", "語 x"]);
        assert_eq!(filled("", 6), [""]);
        let row = ["a title".to_owned(), "one two three".to_owned()];
        assert_eq!(
            lines(&row, &[4, 8], |i| i == 1),
            [["a t…", "one two"], ["", "three"]]
        );
    }
}
