//! Hunks of a patch found in a text, and put there.

use super::nearest::hint;
use super::outcome::Told;
use super::patch::{Hunk, Line};
use super::replace::is_crlf;

/// Lines of a hunk that is not found, as far as they are told.
const LINES_TOLD: usize = 12;

/// A text with all hunks in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) text: String,
    pub(super) added: usize,
    pub(super) removed: usize,
}

/// Put hunks into a text, in order. What does not change stays byte for byte.
pub(super) fn apply(shown: &str, text: &str, hunks: &[Hunk]) -> Told<Applied> {
    let lines = Lines::of(text);
    let mut output = Output {
        text: String::with_capacity(text.len()),
        end: if is_crlf(text) { "\r\n" } else { "\n" },
    };
    let (mut added, mut removed) = (0, 0);
    let mut from = 0;
    for (n, hunk) in hunks.iter().enumerate() {
        let found = locate(&lines, hunk, from).map_err(|missing| {
            let (what, looked_for) = match &missing {
                Missing::Context(context) => ("the context", context.clone()),
                Missing::Lines(wanted) => ("these lines", wanted.join("\n")),
            };
            not_found(shown, &lines, hunk, n, from, what, &looked_for)
        })?;
        (from..found.at).for_each(|line| output.keep(lines.whole(line)));
        from = found.at;
        for line in found.lines {
            match line {
                Line::Same(_) | Line::Bare => {
                    output.keep(lines.whole(from));
                    from += 1;
                }
                Line::Removed(_) => {
                    from += 1;
                    removed += 1;
                }
                Line::Added(text) => {
                    output.add(text);
                    added += 1;
                }
            }
        }
    }
    (from..lines.count()).for_each(|line| output.keep(lines.whole(line)));
    Ok(Applied {
        text: output.finish(text),
        added,
        removed,
    })
}

/// Where lines may stand, best at the end of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Anywhere,
    AtEnd,
}

/// The lines of a text, found by number without holding each: a file may be all line ends.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<u32>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let mut starts = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            // Files have 16 MiB at most.
            starts.push(u32::try_from(at).unwrap_or(u32::MAX));
            at += line.len();
        }
        Self { text, starts }
    }

    fn count(&self) -> usize {
        self.starts.len()
    }

    /// With its end.
    fn whole(&self, line: usize) -> &'a str {
        let start = self
            .starts
            .get(line)
            .map_or(self.text.len(), |at| *at as usize);
        let next = self.starts.get(line + 1);
        let end = next.map_or(self.text.len(), |at| *at as usize);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Without it.
    fn get(&self, line: usize) -> &'a str {
        let whole = self.whole(line);
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// Where these lines stand together, at or after a line; at the end of the text, when they may.
    fn find(&self, wanted: &[&str], from: usize, place: Where) -> Option<usize> {
        let last = self.count().checked_sub(wanted.len())?;
        for same in [exact, but_for_trailing_white_space] {
            let is_at = |at: &usize| {
                let mut wanted = wanted.iter().enumerate();
                wanted.all(|(n, line)| same(self.get(at + n), line))
            };
            if place == Where::AtEnd && last >= from && is_at(&last) {
                return Some(last);
            }
            if let Some(at) = (from..=last).find(is_at) {
                return Some(at);
            }
        }
        None
    }
}

fn exact(a: &str, b: &str) -> bool {
    a == b
}

fn but_for_trailing_white_space(a: &str, b: &str) -> bool {
    a.trim_end() == b.trim_end()
}

/// Where a hunk begins, and its lines without those that are only the patch's layout.
struct Found<'h> {
    at: usize,
    lines: &'h [Line],
}

enum Missing {
    Context(String),
    Lines(Vec<String>),
}

fn locate<'h>(lines: &Lines<'_>, hunk: &'h Hunk, from: usize) -> Result<Found<'h>, Missing> {
    let place = match hunk.at_end {
        true => Where::AtEnd,
        false => Where::Anywhere,
    };
    let mut after = from;
    // The last context line: some models repeat it in the hunk.
    let mut context_at = None;
    for context in &hunk.contexts {
        let indented = || {
            let wanted = context.trim();
            (after..lines.count()).find(|line| lines.get(*line).trim() == wanted)
        };
        let at = lines
            .find(&[context.as_str()], after, Where::Anywhere)
            .or_else(indented);
        let at = at.ok_or_else(|| Missing::Context(context.clone()))?;
        context_at = Some(at);
        after = at + 1;
    }
    let trailing = hunk.lines.iter().rev();
    let bare = trailing.take_while(|line| **line == Line::Bare).count();
    let all = hunk.lines.as_slice();
    let without = all.get(..all.len() - bare).unwrap_or_default();
    for part in [all, without] {
        let wanted = old(part);
        let at = match (wanted.is_empty(), context_at) {
            // Nothing but new lines: below the context, or at the end.
            (true, Some(at)) => Some(at + 1),
            (true, None) => Some(lines.count()),
            (false, _) => lines
                .find(&wanted, after, place)
                .or_else(|| lines.find(&wanted, context_at?, place)),
        };
        if let Some(at) = at {
            return Ok(Found { at, lines: part });
        }
    }
    let wanted = old(without).into_iter().map(str::to_owned);
    Err(Missing::Lines(wanted.collect()))
}

/// The lines that must be there.
fn old(lines: &[Line]) -> Vec<&str> {
    let old = lines.iter().filter_map(|line| match line {
        Line::Same(text) | Line::Removed(text) => Some(text.as_str()),
        Line::Bare => Some(""),
        Line::Added(_) => None,
    });
    old.collect()
}

fn not_found(
    shown: &str,
    lines: &Lines<'_>,
    hunk: &Hunk,
    number: usize,
    from: usize,
    what: &str,
    wanted: &str,
) -> String {
    let told: Vec<&str> = wanted.lines().take(LINES_TOLD).collect();
    let all: Vec<&str> = wanted.lines().collect();
    let why = match lines.find(&all, 0, Where::Anywhere) {
        Some(at) if from > 0 && !all.is_empty() => format!(
            "They stand at line {}, above the hunk before: put the hunks in the order of the file.",
            at + 1
        ),
        Some(_) | None => hint(lines.text, wanted),
    };
    let after = match from {
        0 => String::new(),
        from => format!(" after line {from}"),
    };
    format!(
        "hunk {} of {shown} (line {} of the patch): {what} were not found in the file{after}:\n{}\n\
         {why}\nNothing was written.",
        number + 1,
        hunk.patch_line,
        told.join("\n")
    )
}

struct Output {
    text: String,
    /// Of lines that are added.
    end: &'static str,
}

impl Output {
    fn keep(&mut self, whole: &str) {
        self.end_line();
        self.text.push_str(whole);
    }

    fn add(&mut self, line: &str) {
        self.end_line();
        self.text.push_str(line);
        self.text.push_str(self.end);
    }

    /// The text's last line may have no end; as soon as one follows it has.
    fn end_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push_str(self.end);
        }
    }

    /// With or without an end of the last line, as it was before.
    fn finish(mut self, before: &str) -> String {
        if before.is_empty() || before.ends_with('\n') {
            self.end_line();
        } else if self.text.ends_with('\n') {
            self.text.pop();
            if self.text.ends_with('\r') {
                self.text.pop();
            }
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch::{Action, parse};
    use super::*;
    use proptest::strategy::Strategy as _;

    fn patched(text: &str, hunks: &str) -> Told<String> {
        let mut sections = parse(&format!("*** Update File: f\n{hunks}")).unwrap();
        let Action::Update { hunks, .. } = sections.remove(0).action else {
            panic!("no update");
        };
        apply("f", text, &hunks).map(|applied| applied.text)
    }

    #[test]
    fn hunks_are_found_and_the_rest_stays_byte_for_byte() {
        let text = "a  \nb\r\nc\nd";
        assert_eq!(patched(text, " a\n-b\n+B\n c").unwrap(), "a  \nB\nc\nd");
        assert_eq!(
            patched(text, " c\n-d\n+D\n+E").unwrap(),
            "a  \nb\r\nc\nD\nE"
        );
        assert_eq!(patched("a\r\nb\r\n", " a\n+x").unwrap(), "a\r\nx\r\nb\r\n");
        assert_eq!(patched("", "+x").unwrap(), "x\n");
        assert_eq!(patched("a\n", "@@\n+x").unwrap(), "a\nx\n");
    }

    #[test]
    fn contexts_choose_between_places_that_are_alike() {
        let text = "class A:\n  def f:\n    x\nclass B:\n  def f:\n    x\n";
        let hunk = "@@ class B:\n@@   def f:\n-    x\n+    y";
        let expected = "class A:\n  def f:\n    x\nclass B:\n  def f:\n    y\n";
        assert_eq!(patched(text, hunk).unwrap(), expected);
        let repeated = "@@ class B:\n class B:\n-  def f:\n+  def g:";
        assert!(
            patched(text, repeated)
                .unwrap()
                .contains("class B:\n  def g:")
        );
        let inserted = patched(text, "@@ class B:\n+  z").unwrap();
        assert!(inserted.contains("class B:\n  z\n"), "{inserted}");
        let at_end = patched("x\ny\nx\n", "@@\n-x\n+z\n*** End of File").unwrap();
        assert_eq!(at_end, "x\ny\nz\n");
    }

    #[test]
    fn an_empty_line_without_its_space_is_forgiven() {
        assert_eq!(patched("a\n\nb\n", " a\n\n-b\n+c").unwrap(), "a\n\nc\n");
        assert_eq!(patched("a\nb\n", "-a\n+c\n\n@@\n-b\n+d").unwrap(), "c\nd\n");
    }

    #[test]
    fn what_is_not_found_is_shown() {
        let told = patched("fn a() {\n\tone\n}\n", " fn a() {\n-    one\n+two").unwrap_err();
        assert!(told.contains("hunk 1 of f (line 2 of the patch)"), "{told}");
        assert!(told.contains("fn a() {\n    one"), "{told}");
        assert!(told.contains("other white space"), "{told}");
        let told = patched("a\nb\n", "@@\n-b\n+c\n@@\n-a\n+d").unwrap_err();
        assert!(
            told.contains("hunk 2") && told.contains("order of the file"),
            "{told}"
        );
        let told = patched("a\n", "@@ class X\n-a\n+b").unwrap_err();
        assert!(
            told.contains("the context") && told.contains("class X"),
            "{told}"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Keep,
        Remove,
        Insert(u8),
    }

    /// Lines that are all different, edited at random, as a file and as a patch.
    fn edit(steps: &[Step]) -> (String, String, String) {
        let (mut before, mut after, mut patch) = (String::new(), String::new(), "@@\n".to_owned());
        for (n, step) in steps.iter().enumerate() {
            let (old, new) = match step {
                Step::Keep => (Some(format!("line {n}")), Some(format!("line {n}"))),
                Step::Remove => (Some(format!("line {n}")), None),
                Step::Insert(byte) => (None, Some(format!("new {byte}"))),
            };
            let mark = match step {
                Step::Keep => ' ',
                Step::Remove => '-',
                Step::Insert(_) => '+',
            };
            let line = old.clone().or(new.clone()).unwrap();
            patch.push_str(&format!("{mark}{line}\n"));
            before.extend(old.map(|line| line + "\n"));
            after.extend(new.map(|line| line + "\n"));
        }
        (before, after, patch)
    }

    proptest::proptest! {
        #[test]
        fn a_patch_of_an_edit_gives_the_edited_file(
            steps in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::strategy::Just(Step::Keep),
                    proptest::strategy::Just(Step::Remove),
                    proptest::prelude::any::<u8>().prop_map(Step::Insert),
                ],
                1..30,
            ),
        ) {
            let (before, after, patch) = edit(&steps);
            proptest::prop_assert_eq!(patched(&before, &patch).unwrap(), after.as_str());
            let crlf = patched(&before.replace('\n', "\r\n"), &patch).unwrap();
            if !before.is_empty() {
                proptest::prop_assert_eq!(crlf, after.replace('\n', "\r\n"));
            }
        }
    }
}
