//! What a file has in place of the lines that a model remembers wrongly.

use std::collections::HashSet;

use super::text::numbered;

/// Lines of a file that are compared: a hint is worth no more time.
const LINES_MAX: usize = 20_000;

/// Bytes of one line that are compared.
const LINE_BYTES_MAX: usize = 200;

/// Lines of a hint.
const SHOWN_MAX: usize = 12;

/// Likeness below which nothing is near.
const LIKE_MIN: f64 = 0.5;

/// Say where lines like these are. The text has LF for line ends.
pub(super) fn hint(text: &str, wanted: &str) -> String {
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    let wanted: Vec<&str> = wanted.trim_matches('\n').lines().collect();
    if let Some(at) = same_but_for_white_space(&lines, &wanted) {
        let shown = shown(&lines, at, wanted.len());
        return format!(
            "It would match at line {} with other white space (spaces, tabs, indentation). The \
             file has there:\n{shown}",
            at + 1
        );
    }
    match most_like(&lines, &wanted) {
        Some(at) => format!(
            "The nearest lines of the file are:\n{}",
            shown(&lines, at, wanted.len())
        ),
        None => "Nothing in the file is near to it; read the file again.".to_owned(),
    }
}

fn shown(lines: &[&str], at: usize, count: usize) -> String {
    let count = count.clamp(1, SHOWN_MAX);
    let part = lines.iter().skip(at).take(count).copied();
    numbered(part, at + 1)
}

fn same_but_for_white_space(lines: &[&str], wanted: &[&str]) -> Option<usize> {
    let squeeze = |line: &&str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> = wanted.iter().map(squeeze).collect();
    if wanted.iter().all(String::is_empty) {
        return None;
    }
    let lines: Vec<String> = lines.iter().map(squeeze).collect();
    let single = wanted.len() == 1;
    lines.windows(wanted.len()).position(|window| match single {
        // A part of a line.
        true => window[0].contains(&wanted[0]),
        false => window == wanted,
    })
}

/// Where a line is most like the longest of those wanted, as the first of them would stand.
fn most_like(lines: &[&str], wanted: &[&str]) -> Option<usize> {
    let (offset, longest) = wanted
        .iter()
        .enumerate()
        .max_by_key(|(_, line)| line.trim().len())?;
    let pairs_of_wanted = pairs(longest);
    let (at, best) = lines
        .iter()
        .map(|line| likeness(&pairs(line), &pairs_of_wanted))
        .enumerate()
        .max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (best >= LIKE_MIN).then(|| at.saturating_sub(offset))
}

/// Neighbouring bytes of a line.
fn pairs(line: &str) -> HashSet<[u8; 2]> {
    let bytes = line.trim().as_bytes();
    let bytes = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    bytes.windows(2).map(|pair| [pair[0], pair[1]]).collect()
}

fn likeness(a: &HashSet<[u8; 2]>, b: &HashSet<[u8; 2]>) -> f64 {
    match a.len() + b.len() {
        0 => 0.0,
        all => 2.0 * a.intersection(b).count() as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "fn one() {\n    let a = 1;\n}\n\nfn two() {\n\tlet b = 2;\n}\n";

    #[test]
    fn other_white_space_is_recognised() {
        let told = hint(FILE, "fn two() {\n    let b = 2;\n}");
        assert!(told.contains("match at line 5"), "{told}");
        assert!(
            told.ends_with("     5\tfn two() {\n     6\t\tlet b = 2;\n     7\t}"),
            "{told}"
        );
        assert!(hint(FILE, "let  a = 1;").contains("match at line 2"));
    }

    #[test]
    fn the_nearest_lines_are_shown_or_nothing() {
        let told = hint(FILE, "fn one() {\n    let a = 11;\n");
        assert!(
            told.contains("     1\tfn one() {\n     2\t    let a = 1;"),
            "{told}"
        );
        assert!(hint(FILE, "zzzz").contains("Nothing"));
        assert!(hint("", "x").contains("Nothing"));
        assert!(hint(FILE, "\n\n").contains("Nothing"));
    }
}
