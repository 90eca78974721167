//! `apply_patch`: changes in several places and files, all or none of them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::definitions::{Concurrency, Required, Tool, schema, text};
use super::fields::Fields;
use super::hunks;
use super::outcome::{Outcome, Told};
use super::patch::{Action, Hunk, Section, parse};
use super::place::{Found, Place, Roots};
use super::staged::{Rights, Staged, is_free, removable, remove};
use super::text::exact;
use crate::domain::limits;

pub(super) fn definition() -> Tool {
    Tool {
        name: "apply_patch",
        description: "Add, change, move and delete files with one patch. All of it is applied or \
            nothing. The form:\n\
            *** Begin Patch\n\
            *** Add File: new.txt\n\
            +every line of the new file\n\
            *** Update File: src/a.py\n\
            *** Move to: src/b.py\n\
            @@ def f():\n \
            a line that stays\n\
            -a line that goes\n\
            +a line that comes\n\
            *** Delete File: old.txt\n\
            *** End Patch\n\
            \"*** Move to\" and what follows \"@@\" (a line above the change, to tell like places \
            apart) may be left out. Give about three lines that stay around each change, exactly \
            as in the file; hunks of a file come in its order. \"*** End of File\" after a hunk \
            binds it to the file's end. Paths are relative to the worktree. Add File needs a path \
            that is free. At most 200 UTF-8 files.",
        kind: "edit",
        concurrency: Concurrency::Alone,
        schema: schema([text("patch", Required::Yes, "The whole patch.")]),
    }
}

pub(super) fn run(roots: &Roots, input: &mut Fields) -> Told<Outcome> {
    let patch = input.text("patch", &["input", "patchText", "patch_text", "diff"])?;
    let mut plan = Plan::default();
    for section in parse(&patch)? {
        plan.take(roots, section)?;
    }
    plan.write()?;
    let told = plan.told.join("\n");
    let changed = plan.files.iter().filter(|file| file.is_changed());
    let paths: Vec<String> = changed.map(|file| file.place.shown()).collect();
    Ok(Outcome::done(format!("applied the patch:\n{told}"))
        .with("paths", paths)
        .with("added", plan.added)
        .with("removed", plan.removed))
}

/// What a patch comes to, in memory.
#[derive(Debug, Default)]
struct Plan {
    files: Vec<File>,
    /// One line for each section.
    told: Vec<String>,
    added: usize,
    removed: usize,
}

/// A file that the patch names.
#[derive(Debug)]
struct File {
    place: Place,
    /// What is there now.
    before: Before,
    after: After,
    rights: Rights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Something,
}

#[derive(Debug, PartialEq, Eq)]
enum After {
    /// As before, as far as the patch was read.
    Same,
    Gone,
    Text(String),
}

impl File {
    fn is_there(&self) -> bool {
        match self.after {
            After::Same => self.before == Before::Something,
            After::Gone => false,
            After::Text(_) => true,
        }
    }

    fn is_changed(&self) -> bool {
        self.after != After::Same
    }
}

impl Plan {
    fn take(&mut self, roots: &Roots, section: Section) -> Told<()> {
        let place = roots.place(&section.path)?;
        let file = self.file(&place)?;
        let shown = place.shown();
        match section.action {
            Action::Add(text) => self.add(file, text, &shown)?,
            Action::Delete => self.delete(file, &shown)?,
            Action::Update { moved_to, hunks } => {
                let to = moved_to.map(|to| roots.place(&to)).transpose()?;
                self.update(file, to, &hunks, &shown)?;
            }
        }
        let bytes = self.files.iter().map(|file| match &file.after {
            After::Text(text) => text.len(),
            After::Same | After::Gone => 0,
        });
        match bytes.sum::<usize>() > limits::tools::PATCH_BYTES_MAX {
            true => Err(format!(
                "the files of the patch have more than {} MiB in all: split it",
                limits::tools::PATCH_BYTES_MAX >> 20
            )),
            false => Ok(()),
        }
    }

    /// Its number, as the sections before this one left it.
    fn file(&mut self, place: &Place) -> Told<usize> {
        let shown = place.shown();
        if let Some(known) = self
            .files
            .iter()
            .position(|file| file.place.shown() == shown)
        {
            return Ok(known);
        }
        self.files.push(File {
            place: place.clone(),
            before: match is_free(place)? {
                true => Before::Nothing,
                false => Before::Something,
            },
            after: After::Same,
            rights: Rights::Kept,
        });
        Ok(self.files.len() - 1)
    }

    fn add(&mut self, file: usize, text: String, shown: &str) -> Told<()> {
        let file = &mut self.files[file];
        if file.is_there() {
            return Err(format!(
                "{shown} cannot be added, it exists: use \"*** Update File:\". Nothing was written."
            ));
        }
        let lines = text.lines().count();
        file.after = After::Text(text);
        self.added += lines;
        self.told.push(format!("added {shown} (+{lines})"));
        Ok(())
    }

    fn delete(&mut self, file: usize, shown: &str) -> Told<()> {
        let file = &mut self.files[file];
        if !file.is_there() {
            return Err(format!(
                "{shown} cannot be deleted, it does not exist. Nothing was written."
            ));
        }
        if file.before == Before::Something {
            removable(&file.place)?;
        }
        let lines = match &file.after {
            After::Text(text) => text.lines().count(),
            // What is no text has no lines.
            After::Same => exact(&file.place).map_or(0, |(text, _)| text.lines().count()),
            After::Gone => 0,
        };
        file.after = After::Gone;
        self.removed += lines;
        self.told.push(format!("deleted {shown} (-{lines})"));
        Ok(())
    }

    fn update(
        &mut self,
        number: usize,
        to: Option<Place>,
        hunks: &[Hunk],
        shown: &str,
    ) -> Told<()> {
        let file = &self.files[number];
        if !file.is_there() {
            return Err(format!(
                "{shown} cannot be updated, it does not exist. Nothing was written."
            ));
        }
        let loaded;
        let (text, rights) = match &file.after {
            After::Text(text) => (text, file.rights),
            After::Same | After::Gone => {
                loaded = exact(&file.place)?;
                (&loaded.0, Rights::Of(loaded.1))
            }
        };
        let applied = hunks::apply(shown, text, hunks)?;
        self.added += applied.added;
        self.removed += applied.removed;
        let counts = format!("(+{} -{})", applied.added, applied.removed);
        let to = to.filter(|to| to.shown() != shown);
        let Some(to) = to else {
            self.files[number].after = After::Text(applied.text);
            self.told.push(format!("changed {shown} {counts}"));
            return Ok(());
        };
        if self.files[number].before == Before::Something {
            removable(&self.files[number].place)?;
        }
        let target = self.file(&to)?;
        let to = to.shown();
        if self.files[target].is_there() {
            return Err(format!(
                "{shown} cannot be moved to {to}, which exists. Nothing was written."
            ));
        }
        self.files[target].after = After::Text(applied.text);
        self.files[target].rights = rights;
        self.files[number].after = After::Gone;
        self.told.push(format!("moved {shown} to {to} {counts}"));
        Ok(())
    }

    /// A file cannot be above another one. Only putting them into their places would show it, when
    /// some are there already.
    fn check_directories(&self) -> Told<()> {
        let there = self.files.iter().filter(|file| file.is_there());
        let shown: BTreeSet<PathBuf> = there.map(|file| file.place.shown().into()).collect();
        for path in &shown {
            let above = path
                .ancestors()
                .skip(1)
                .find(|above| shown.contains(*above));
            if let Some(above) = above {
                return Err(format!(
                    "{} cannot be a file and the directory of {}. Nothing was written.",
                    above.display(),
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Two names of one file, of which the later one would undo what the earlier one did.
    fn check_names(&self) -> Told<()> {
        use std::os::unix::fs::MetadataExt as _;
        let mut seen: HashMap<(u64, u64), String> = HashMap::new();
        let changed = self
            .files
            .iter()
            .filter(|file| file.before == Before::Something);
        for file in changed.filter(|file| matches!(file.after, After::Text(_))) {
            let Found::File(_, metadata) = file.place.look()? else {
                continue;
            };
            let shown = file.place.shown();
            if let Some(other) = seen.insert((metadata.dev(), metadata.ino()), shown.clone()) {
                return Err(format!(
                    "{other} and {shown} are the same file: change it under one name. Nothing was written."
                ));
            }
        }
        Ok(())
    }

    /// Write all of it beside the files first; what can fail has failed then.
    fn write(&self) -> Told<()> {
        self.check_directories()?;
        self.check_names()?;
        let mut staged = Vec::new();
        let mut gone = Vec::new();
        for file in &self.files {
            match (&file.after, file.before) {
                (After::Text(text), _) => {
                    staged.push(Staged::write(&file.place, text.as_bytes(), file.rights)?);
                }
                (After::Gone, Before::Something) => gone.push(&file.place),
                (After::Gone, Before::Nothing) | (After::Same, _) => {}
            }
        }
        let count = staged.len() + gone.len();
        let steps = staged
            .into_iter()
            .map(Staged::commit)
            .chain(gone.into_iter().map(remove));
        for (done, step) in steps.enumerate() {
            step.map_err(|told| {
                format!("{told}; {done} of {count} files were changed before: look at git status")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;

    fn patch(sections: &str) -> serde_json::Value {
        json!({ "patch": format!("*** Begin Patch\n{sections}\n*** End Patch\n") })
    }

    #[test]
    fn files_are_added_changed_moved_and_deleted() {
        use std::os::unix::fs::PermissionsExt as _;
        let tree = Tree::new();
        tree.put("a", "1\n2\n3\n");
        tree.put("old", "x\ny\n");
        tree.put("gone", "g\n");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(tree.path("old"), mode).unwrap();
        let applied = tree.call(
            "apply_patch",
            patch(
                "*** Add File: d/new\n+n\n*** Update File: a\n 1\n-2\n+two\n*** Update File: old\n\
                 *** Move to: d/moved\n-y\n+z\n*** Delete File: gone",
            ),
        );
        let expected = "applied the patch:\nadded d/new (+1)\nchanged a (+1 -1)\n\
                        moved old to d/moved (+1 -1)\ndeleted gone (-1)";
        assert_eq!(applied.output, expected);
        assert_eq!(
            applied.detail["paths"],
            json!(["d/new", "a", "old", "d/moved", "gone"])
        );
        assert_eq!(
            (&applied.detail["added"], &applied.detail["removed"]),
            (&json!(3), &json!(3))
        );
        assert_eq!(tree.text("a"), "1\ntwo\n3\n");
        assert_eq!(tree.text("d/new"), "n\n");
        assert_eq!(tree.text("d/moved"), "x\nz\n");
        assert_eq!(tree.names(""), ["a", "d"]);
        let mode = tree
            .path("d/moved")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn one_part_that_fails_leaves_all_files_as_they_were() {
        let tree = Tree::new();
        tree.put("a", "1\n2\n");
        tree.put("b", "1\n");
        let first = "*** Add File: n/new\n+x\n*** Update File: a\n-2\n+two\n*** Delete File: b\n";
        for (part, why) in [
            ("*** Update File: a\n-3\n+three", "hunk 1 of a (line 9"),
            ("*** Update File: none\n-3\n+three", "does not exist"),
            ("*** Delete File: none", "does not exist"),
            ("*** Add File: a\n+x", "it exists"),
            ("*** Add File: ../x\n+x", "outside the worktree"),
            ("*** Add File: a/x\n+x", "is a file, not a directory"),
            ("*** Update File: b\n-1\n+x", "does not exist"),
            (
                "*** Add File: c\n+x\n*** Add File: c/d\n+x",
                "the directory of c/d",
            ),
        ] {
            let told = tree.failed("apply_patch", patch(&format!("{first}{part}")));
            assert!(told.contains(why), "{part}: {told}");
            assert_eq!(tree.text("a"), "1\n2\n");
            assert_eq!(tree.text("b"), "1\n");
            assert!(!tree.path("n/new").exists());
        }
        assert_eq!(tree.names(""), ["a", "b"]);
    }

    #[test]
    fn sections_see_what_those_before_them_did() {
        let tree = Tree::new();
        tree.put("a", "1\n2\n");
        let sections = "*** Update File: a\n-1\n+one\n*** Update File: ./a\n one\n-2\n+two\n\
                        *** Add File: b\n+x\n*** Update File: b\n-x\n+y";
        tree.done("apply_patch", patch(sections));
        assert_eq!(
            (tree.text("a"), tree.text("b")),
            ("one\ntwo\n".into(), "y\n".into())
        );
    }

    #[test]
    fn a_file_is_changed_under_one_of_its_names() {
        use std::os::unix::fs::symlink;
        let tree = Tree::new();
        tree.put("a", "1\n2\n");
        symlink("a", tree.path("link")).unwrap();
        std::fs::hard_link(tree.path("a"), tree.path("hard")).unwrap();
        for other in ["link", "hard"] {
            let sections =
                format!("*** Update File: a\n-1\n+one\n*** Update File: {other}\n-2\n+two");
            let told = tree.failed("apply_patch", patch(&sections));
            assert!(told.contains("same file"), "{told}");
            assert_eq!(tree.text("a"), "1\n2\n");
        }
        tree.done(
            "apply_patch",
            patch("*** Update File: link\n-1\n+one\n*** Delete File: hard"),
        );
        assert_eq!(tree.text("a"), "one\n2\n");
    }

    #[test]
    fn links_that_leave_are_not_followed() {
        use std::os::unix::fs::symlink;
        let tree = Tree::new();
        tree.put_outside("secret", "x\n");
        symlink("../outside", tree.path("dir")).unwrap();
        symlink("../outside/secret", tree.path("out")).unwrap();
        for sections in [
            "*** Update File: out\n-x\n+y",
            "*** Update File: dir/secret\n-x\n+y",
            "*** Add File: dir/new\n+y",
            "*** Delete File: dir/secret",
        ] {
            let told = tree.failed("apply_patch", patch(sections));
            assert!(told.contains("outside the worktree"), "{sections}: {told}");
        }
        // A link itself is of the worktree.
        tree.done("apply_patch", patch("*** Delete File: out"));
        assert_eq!(tree.outside("secret"), "x\n");
        assert_eq!(tree.names(""), ["dir"]);
    }
}
