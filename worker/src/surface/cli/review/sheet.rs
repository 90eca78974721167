//! What a reviewer has before them: a change as it was read, where they are in it, and what they
//! said of it that is not sent yet. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::surface::safe_text;

/// What is above this line in the editor is sent.
const SCISSORS: &str = "# ------------------------ >8 ------------------------";

/// Where a file of the change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is said of it.
    Open,
    /// The reviewer approves it; that is sent with the whole change.
    Approved,
    /// It is set aside.
    SetAside,
}

/// What an approval takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approval {
    /// How many files.
    pub(super) count: usize,
    /// Which; absent: all that are not set aside.
    pub(super) only: Option<Vec<String>>,
}

/// One change under review.
pub(super) struct Sheet {
    /// The change, as `change.show` told it.
    pub(super) change: Value,
    /// Which file is looked at.
    at: usize,
    approved: BTreeSet<usize>,
    comments: Vec<(String, String)>,
}

impl Sheet {
    pub(super) fn new(change: Value) -> Self {
        Self {
            change,
            at: 0,
            approved: BTreeSet::new(),
            comments: Vec::new(),
        }
    }

    /// The change as it is now. What was approved of another one is forgotten; comments are kept.
    pub(super) fn renew(&mut self, change: Value) {
        if change["digest"] != self.change["digest"] {
            self.approved.clear();
            self.at = 0;
        }
        self.change = change;
    }

    pub(super) fn id(&self) -> &Value {
        &self.change["id"]
    }

    /// Whether it can be decided on.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.change["state"].as_str(),
            Some("pending" | "conflicted")
        )
    }

    fn files(&self) -> &[Value] {
        self.change["file_list"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// How many files it has.
    pub(super) fn count(&self) -> usize {
        self.files().len()
    }

    /// Number of the file that is looked at, from 1.
    pub(super) fn number(&self) -> usize {
        self.at + 1
    }

    /// The file that is looked at; none in a change without files.
    pub(super) fn file(&self) -> Option<&Value> {
        self.files().get(self.at)
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        self.file().map_or("", path_of)
    }

    /// Go to the next file; `false`: it is the last one.
    pub(super) fn next(&mut self) -> bool {
        let more = self.at + 1 < self.count();
        self.at += usize::from(more);
        more
    }

    /// Go to the file before; `false`: it is the first one.
    pub(super) fn previous(&mut self) -> bool {
        let more = self.at > 0;
        self.at -= usize::from(more);
        more
    }

    /// Go to the next file of which nothing is said, after the last one from the first on; `false`:
    /// there is none.
    pub(super) fn next_open(&mut self) -> bool {
        let count = self.count();
        let mut following = (1..=count).map(|step| (self.at + step) % count);
        let open = following.find(|n| self.standing_of(*n) == Standing::Open);
        self.at = open.unwrap_or(self.at);
        open.is_some()
    }

    fn standing_of(&self, n: usize) -> Standing {
        let is_aside = |file: &Value| file["state"] == "rejected";
        match self.files().get(n) {
            _ if self.approved.contains(&n) => Standing::Approved,
            Some(file) if is_aside(file) => Standing::SetAside,
            _ => Standing::Open,
        }
    }

    /// Where the file that is looked at stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing_of(self.at)
    }

    /// Approve the file that is looked at.
    pub(super) fn approve(&mut self) {
        self.approved.insert(self.at);
    }

    /// The file that is looked at was set aside.
    pub(super) fn set_aside(&mut self) {
        self.approved.remove(&self.at);
        if let Some(file) = self.change["file_list"].get_mut(self.at) {
            file["state"] = "rejected".into();
        }
    }

    /// What would be approved now; `None`: every file is set aside.
    pub(super) fn approval(&self) -> Option<Approval> {
        let all = 0..self.count();
        let kept: Vec<usize> = all
            .filter(|n| self.standing_of(*n) != Standing::SetAside)
            .collect();
        let taken_back = |n: &usize| {
            self.files()
                .get(*n)
                .is_some_and(|f| f["state"] == "rejected")
        };
        let only = kept.iter().any(taken_back).then(|| {
            let kept = kept.iter().filter_map(|n| self.files().get(*n));
            kept.map(|file| path_of(file).to_owned()).collect()
        });
        (!kept.is_empty()).then_some(Approval {
            count: kept.len(),
            only,
        })
    }

    /// Say something about the file that is looked at.
    pub(super) fn comment(&mut self, text: String) {
        let path = safe_text::line(self.path());
        self.comments.push((path, text));
    }

    /// What was said about the file that is looked at.
    pub(super) fn comments_here(&self) -> impl Iterator<Item = &str> {
        let path = safe_text::line(self.path());
        let here = self.comments.iter().filter(move |(of, _)| *of == path);
        here.map(|(_, text)| text.as_str())
    }

    /// How many comments there are.
    pub(super) fn comment_count(&self) -> usize {
        self.comments.len()
    }

    /// How many files are approved by word alone.
    pub(super) fn approved_count(&self) -> usize {
        self.approved.len()
    }

    /// All comments as one text, each under its file.
    pub(super) fn said(&self) -> String {
        let lines = self.comments.iter();
        let lines: Vec<String> = lines
            .map(|(path, text)| format!("{path}: {text}"))
            .collect();
        lines.join("\n")
    }

    /// The same for an editor, with what to do there.
    pub(super) fn draft(&self) -> String {
        format!(
            "{}\n\n{SCISSORS}\n# What is above this line is sent to the agent that made change {}.\n\
             # Nothing above it: nothing is sent.\n",
            self.said(),
            self.id()
        )
    }
}

/// What was written above the line that ends a draft.
pub(super) fn above_scissors(text: &str) -> String {
    let lines: Vec<&str> = text.lines().take_while(|line| *line != SCISSORS).collect();
    lines.join("\n").trim().to_owned()
}

fn path_of(file: &Value) -> &str {
    file["path"].as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sheet(states: &[&str]) -> Sheet {
        let files = states.iter().enumerate();
        let files: Vec<Value> = files
            .map(|(n, state)| json!({"path": format!("f{n}"), "state": state}))
            .collect();
        Sheet::new(json!({"id": 7, "state": "pending", "digest": "d1", "file_list": files}))
    }

    fn approval(count: usize, only: Option<&[&str]>) -> Option<Approval> {
        let only = only.map(|only| only.iter().map(|path| (*path).to_owned()).collect());
        Some(Approval { count, only })
    }

    #[test]
    fn an_approval_takes_what_is_not_set_aside_and_names_what_is_taken_back() {
        let mut sheet = sheet(&["pending", "rejected", "pending"]);
        assert_eq!(sheet.approval(), approval(2, None));
        sheet.set_aside();
        assert_eq!(sheet.approval(), approval(1, None));
        assert!(sheet.next_open());
        assert_eq!(sheet.path(), "f2");
        sheet.set_aside();
        assert_eq!((sheet.approval(), sheet.next_open()), (None, false));
        sheet.approve();
        assert_eq!(sheet.approval(), approval(1, Some(&["f2"])));
        sheet.set_aside();
        assert_eq!(sheet.approval(), None, "the last word counts");
    }

    #[test]
    fn another_change_takes_approvals_away_and_leaves_comments() {
        let mut sheet = sheet(&["pending", "pending"]);
        sheet.approve();
        sheet.comment("why?".to_owned());
        let mut same = sheet.change.clone();
        same["state"] = "conflicted".into();
        sheet.renew(same.clone());
        assert_eq!(sheet.approved_count(), 1);
        same["digest"] = "d2".into();
        sheet.renew(same);
        assert_eq!((sheet.approved_count(), sheet.comment_count()), (0, 1));
    }

    #[test]
    fn comments_are_sent_under_their_files_and_hints_of_the_editor_are_not() {
        let mut sheet = sheet(&["pending", "pending"]);
        assert_eq!(above_scissors(&sheet.draft()), "");
        sheet.comment("a test, please".to_owned());
        assert!(sheet.next() && !sheet.next());
        sheet.comment("# why?".to_owned());
        assert_eq!(sheet.comments_here().collect::<Vec<_>>(), ["# why?"]);
        let sent = "f0: a test, please\nf1: # why?";
        assert_eq!(above_scissors(&sheet.draft()), sent);
        assert_eq!(above_scissors("no line\n"), "no line");
    }
}
