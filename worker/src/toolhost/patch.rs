//! The text of a patch in OpenAI's form, taken apart.

use super::outcome::Told;
use crate::domain::limits;

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const ADD: &str = "*** Add File:";
const UPDATE: &str = "*** Update File:";
const DELETE: &str = "*** Delete File:";
const MOVE: &str = "*** Move to:";
const END_OF_FILE: &str = "*** End of File";

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) path: String,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A new file with this text.
    Add(String),
    Delete,
    Update {
        moved_to: Option<String>,
        hunks: Vec<Hunk>,
    },
}

/// Lines that change together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hunk {
    /// Lines above it that it comes after, from the outermost.
    pub(super) contexts: Vec<String>,
    pub(super) lines: Vec<Line>,
    /// It ends where the file ends.
    pub(super) at_end: bool,
    /// Where it begins in the patch, counted from 1.
    pub(super) patch_line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Same(String),
    Removed(String),
    Added(String),
    /// An empty line without the space before it: part of the file, or of the patch's layout.
    Bare,
}

/// Read it. A fence or a heredoc around it, and a missing end, are forgiven.
pub(super) fn parse(text: &str) -> Told<Vec<Section>> {
    let mut parser = Parser::new(text)?;
    let mut sections = Vec::new();
    while let Some((number, line)) = parser.next() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        if line == END {
            break;
        }
        let section = if let Some(path) = line.strip_prefix(ADD) {
            parser.added(path, number)?
        } else if let Some(path) = line.strip_prefix(DELETE) {
            section(path, number, Action::Delete)?
        } else if let Some(path) = line.strip_prefix(UPDATE) {
            parser.updated(path, number)?
        } else {
            return Err(format!(
                "line {number} of the patch is {line:?}; a file's part begins with \"{ADD} path\", \
                 \"{UPDATE} path\" or \"{DELETE} path\""
            ));
        };
        sections.push(section);
        if sections.len() > limits::tools::PATCH_FILES_MAX {
            let most = limits::tools::PATCH_FILES_MAX;
            return Err(format!(
                "the patch changes more than {most} files: split it"
            ));
        }
    }
    match sections.is_empty() {
        true => Err("the patch names no file".to_owned()),
        false => Ok(sections),
    }
}

fn section(path: &str, number: usize, action: Action) -> Told<Section> {
    let path = path.trim().to_owned();
    match path.is_empty() {
        true => Err(format!("line {number} of the patch names no file")),
        false => Ok(Section { path, action }),
    }
}

struct Parser<'a> {
    lines: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Told<Self> {
        let mut lines: Vec<&str> = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .collect();
        let begins = |line: &&str| {
            let line = line.trim();
            [ADD, UPDATE, DELETE]
                .iter()
                .any(|word| line.starts_with(word))
                || line == BEGIN
        };
        let at = lines.iter().position(begins).ok_or_else(|| {
            format!(
                "this is no patch: it must begin with the line \"{BEGIN}\" and end with \"{END}\""
            )
        })?;
        let wrapped = at > 0;
        if !lines.iter().any(|line| line.trim_end() == END) {
            // The end of what is around it is not part of the last file.
            while lines.last().is_some_and(|line| {
                let line = line.trim();
                line.is_empty() || line == "```" || (wrapped && line == "EOF")
            }) {
                lines.pop();
            }
        }
        let at = match lines.get(at).map(|line| line.trim()) {
            Some(BEGIN) => at + 1,
            Some(_) | None => at,
        };
        Ok(Self { lines, at })
    }

    /// The next line with its number.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let line = self.lines.get(self.at)?;
        self.at += 1;
        Some((self.at, line))
    }

    /// The next line of the same file.
    fn next_inside(&mut self) -> Option<(usize, &'a str)> {
        let line = self.lines.get(self.at)?;
        let heads = [ADD, UPDATE, DELETE, END];
        match heads.iter().any(|head| line.starts_with(head)) {
            true => None,
            false => self.next(),
        }
    }

    fn added(&mut self, path: &str, number: usize) -> Told<Section> {
        let mut content = String::new();
        let mut blank = 0;
        while let Some((number, line)) = self.next_inside() {
            if line.is_empty() {
                blank += 1;
                continue;
            }
            let Some(text) = line.strip_prefix('+') else {
                return Err(format!(
                    "line {number} of the patch is {line:?}; in an added file every line begins \
                     with \"+\""
                ));
            };
            // Empty lines between two others belong to the file; those at its end to the patch.
            content.push_str(&"\n".repeat(std::mem::take(&mut blank)));
            content.push_str(text);
            content.push('\n');
        }
        section(path, number, Action::Add(content))
    }

    fn updated(&mut self, path: &str, number: usize) -> Told<Section> {
        let mut moved_to = None;
        let mut hunks: Vec<Hunk> = Vec::new();
        let mut open: Option<Hunk> = None;
        while let Some((number, line)) = self.next_inside() {
            if let Some(to) = line.strip_prefix(MOVE) {
                moved_to = Some(to.trim().to_owned()).filter(|to| !to.is_empty());
            } else if line.trim_end() == END_OF_FILE {
                if let Some(hunk) = &mut open {
                    hunk.at_end = true;
                }
            } else if let Some(context) = line.strip_prefix("@@") {
                // Several such lines in a row are of one hunk.
                if open.as_ref().is_some_and(|hunk| !hunk.lines.is_empty()) {
                    hunks.extend(open.take());
                }
                let hunk = open.get_or_insert_with(|| Hunk::at(number));
                hunk.contexts.extend(context_of(context));
            } else {
                let line = hunk_line(line, number)?;
                let Some(line) = line else { continue };
                let bare = line == Line::Bare;
                match (&mut open, bare) {
                    // Layout between the head and the first hunk.
                    (None, true) => {}
                    (None, false) => open = Some(with_line(number, line)),
                    (Some(hunk), _) => hunk.lines.push(line),
                }
            }
        }
        hunks.extend(open);
        hunks.retain(|hunk| !hunk.lines.is_empty());
        if hunks.is_empty() && moved_to.is_none() {
            return Err(format!(
                "line {number} of the patch: there are no changes for {}",
                path.trim()
            ));
        }
        section(path, number, Action::Update { moved_to, hunks })
    }
}

impl Hunk {
    fn at(patch_line: usize) -> Self {
        Self {
            patch_line,
            ..Self::default()
        }
    }
}

fn with_line(number: usize, line: Line) -> Hunk {
    Hunk {
        lines: vec![line],
        ..Hunk::at(number)
    }
}

/// `None`: it says nothing of the file.
fn hunk_line(line: &str, number: usize) -> Told<Option<Line>> {
    let mut chars = line.chars();
    let first = chars.next();
    let rest = chars.as_str().to_owned();
    match first {
        None => Ok(Some(Line::Bare)),
        Some(' ') => Ok(Some(Line::Same(rest))),
        Some('-') => Ok(Some(Line::Removed(rest))),
        Some('+') => Ok(Some(Line::Added(rest))),
        // "\ No newline at end of file"
        Some('\\') => Ok(None),
        Some(_) => Err(format!(
            "line {number} of the patch is {line:?}; in a hunk every line begins with \" \" (stays), \
             \"-\" (goes) or \"+\" (comes)"
        )),
    }
}

/// What follows `@@`; line numbers of other kinds of patches say nothing here.
fn context_of(text: &str) -> Option<String> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.trim_end();
    let is_numbers = text.starts_with('-') && text.contains(" +") && text.contains("@@");
    let text = text.strip_suffix(" @@").unwrap_or(text);
    (!is_numbers && !text.is_empty() && text != "@@").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(text: &str) -> Line {
        Line::Same(text.to_owned())
    }

    fn added(text: &str) -> Line {
        Line::Added(text.to_owned())
    }

    #[test]
    fn every_part_of_a_patch_is_read() {
        let text = "*** Begin Patch\n*** Add File: a\n+1\n+\n+2\n*** Update File: b\n*** Move to: c\n\
                    @@ class X\n@@ def f\n same\n-old\n+new\n\n@@\n+end\n*** End of File\n\
                    *** Delete File: d\n*** End Patch\n";
        let sections = parse(text).unwrap();
        let paths: Vec<&str> = sections.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "d"]);
        assert_eq!(sections[0].action, Action::Add("1\n\n2\n".to_owned()));
        assert_eq!(sections[2].action, Action::Delete);
        let Action::Update { moved_to, hunks } = &sections[1].action else {
            panic!("{sections:?}");
        };
        assert_eq!(moved_to.as_deref(), Some("c"));
        assert_eq!(hunks[0].contexts, ["class X", "def f"]);
        let removed = Line::Removed("old".to_owned());
        assert_eq!(
            hunks[0].lines,
            [same("same"), removed, added("new"), Line::Bare]
        );
        assert_eq!((hunks[0].at_end, hunks[1].at_end), (false, true));
        assert_eq!(hunks[1].lines, [added("end")]);
    }

    #[test]
    fn wrapping_and_a_missing_end_are_forgiven() {
        let inner = "*** Update File: b\n-old\n+new";
        let plain = parse(&format!("*** Begin Patch\n{inner}\n*** End Patch")).unwrap();
        for text in [
            format!("```\n*** Begin Patch\n{inner}\n*** End Patch\n```"),
            format!("```diff\n*** Begin Patch\n{inner}\n```\n"),
            format!("apply_patch <<'EOF'\n*** Begin Patch\n{inner}\n*** End Patch\nEOF\n"),
            format!("apply_patch <<'EOF'\n*** Begin Patch\n{inner}\nEOF\n"),
            format!("*** Begin Patch\n{inner}\n"),
            format!("{inner}\n"),
            format!("*** Begin Patch\n{inner}\n*** End Patch").replace('\n', "\r\n"),
        ] {
            let mut sections = parse(&text).unwrap_or_else(|told| panic!("{text}: {told}"));
            for section in &mut sections {
                let Action::Update { hunks, .. } = &mut section.action else {
                    panic!("{text}");
                };
                hunks.iter_mut().for_each(|hunk| hunk.patch_line = 3);
            }
            assert_eq!(sections, plain, "{text}");
        }
        let numbers = parse("*** Update File: b\n@@ -1,2 +1,2 @@ fn x\n-old\n+new").unwrap();
        assert!(format!("{numbers:?}").contains("contexts: []"));
    }

    #[test]
    fn what_is_no_patch_is_refused_with_its_line() {
        let told = |text: &str| parse(text).unwrap_err();
        assert!(told("--- a\n+++ b\n").contains("*** Begin Patch"));
        assert!(told("*** Begin Patch\n*** End Patch").contains("no file"));
        assert!(told("*** Begin Patch\nhello").contains("line 2"));
        assert!(told("*** Add File: a\nhello").contains("line 2"));
        assert!(told("*** Update File: a\n@@\nhello").contains("line 3"));
        assert!(told("*** Update File: a\n@@\n*** End Patch").contains("no changes for a"));
        assert!(told("*** Delete File:  ").contains("names no file"));
    }
}
