//! The decisions of a review: each is asked about, sent as the operation it is, and told.

use serde_json::{Value, json};

use super::sheet::{Sheet, above_scissors};
use super::{After, Review};
use crate::ops::OpErrorKind;
use crate::surface::cli::forms::counted;
use crate::surface::cli::keys::Stop;
use crate::surface::cli::programs;
use crate::surface::safe_text;

impl Review<'_> {
    pub(super) async fn approve_file(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        if sheet.file().is_none() {
            return self.tell("It has no files.");
        }
        sheet.approve();
        self.onward(sheet).await
    }

    pub(super) async fn reject_file(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        if sheet.file().is_none() {
            return self.tell("It has no files.");
        }
        let Some(reason) = self.words("Why not this file? ").await? else {
            return self.tell("Nothing is rejected without a reason.");
        };
        let input = json!({"id": sheet.id(), "files": [sheet.path()], "digest": sheet.change["digest"], "reason": reason});
        if self.decided("change.reject", input, sheet).await?.is_none() {
            return Ok(None);
        }
        sheet.set_aside();
        self.tell("Set aside.")?;
        self.onward(sheet).await
    }

    /// To the next file that nothing is said of, or to the end.
    async fn onward(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        if sheet.next_open() {
            self.show_file(sheet)?;
            return Ok(None);
        }
        self.tell("Every file is decided on.")?;
        if sheet.approval().is_none() {
            return self.tell("All are set aside: R rejects the change.");
        }
        self.approve(sheet).await
    }

    pub(super) async fn approve(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        let Some(approval) = sheet.approval() else {
            return self.tell("Every file is set aside: R rejects the change.");
        };
        let all = counted(&sheet.count().to_string(), "file");
        let of = match approval.count == sheet.count() {
            true => all,
            false => format!("{} of {all}", approval.count),
        };
        let with = match sheet.comment_count() {
            0 => "",
            _ => ", with your comments for the record",
        };
        let question = format!("Approve change {}, {of}{with}?", sheet.id());
        if !self.confirmed(&question).await? {
            return self.tell("Nothing is approved.");
        }
        let said = Some(sheet.said()).filter(|said| !said.is_empty());
        let mut input =
            json!({"id": sheet.id(), "digest": sheet.change["digest"], "comment": said});
        if let Some(only) = approval.only {
            input["files"] = json!(only);
        }
        if self
            .decided("change.approve", input, sheet)
            .await?
            .is_none()
        {
            return Ok(None);
        }
        let done = format!("Change {} is approved; a worker applies it.", sheet.id());
        self.tell(&done)?;
        Ok(Some(After::Next))
    }

    pub(super) async fn reject(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        let Some(mut reason) = self.words("Why not this change? ").await? else {
            return self.tell("Nothing is rejected without a reason.");
        };
        if sheet.comment_count() > 0 {
            reason = format!("{reason}\n\n{}", sheet.said());
        }
        let input = json!({"id": sheet.id(), "digest": sheet.change["digest"], "reason": reason});
        if self.decided("change.reject", input, sheet).await?.is_none() {
            return Ok(None);
        }
        self.tell(&format!("Change {} is rejected.", sheet.id()))?;
        Ok(Some(After::Next))
    }

    pub(super) async fn request(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        let message = match programs::editor() {
            Some(editor) => {
                let stop = self.keys.end_of_loan();
                let written = programs::edit(&editor, &sheet.draft(), stop).await;
                self.keys.take_back()?;
                match written? {
                    Some(text) => above_scissors(&text),
                    None => return self.tell("The editor ended with an error: nothing is sent."),
                }
            }
            None => self.dictated(sheet).await?,
        };
        if message.is_empty() {
            return self.tell("Nothing is said: nothing is sent.");
        }
        self.out
            .line(&format!("\n{}\n", safe_text::block(&message)))?;
        if !self.confirmed("Send this to the agent?").await? {
            return self.tell("Nothing is sent.");
        }
        let input = json!({"id": sheet.id(), "digest": sheet.change["digest"], "comment": message});
        let Some(sent) = self.decided("change.request-changes", input, sheet).await? else {
            return Ok(None);
        };
        self.tell(&format!(
            "Task {} works on it further: dispatch watch {0}",
            sent["task_id"]
        ))?;
        Ok(Some(After::Next))
    }

    /// Lines after the comments, where there is no editor.
    async fn dictated(&mut self, sheet: &Sheet) -> Result<String, Stop> {
        let mut lines = vec![sheet.said()];
        self.out.line(&safe_text::block(&sheet.said()))?;
        self.out
            .line("What else shall the agent do? A line with nothing but a dot ends it.")?;
        loop {
            match self.keys.line().await {
                Ok(line) if line != "." => lines.push(line),
                // Ctrl-D ends the text; whether it is sent is asked next.
                Ok(_) | Err(Stop::EndOfInput) => break,
                Err(stop) => return Err(stop),
            }
        }
        Ok(lines.join("\n").trim().to_owned())
    }

    /// Ask for a decision; `None`: it was refused, which was told, and the change shown again when it
    /// is another one now.
    async fn decided(
        &mut self,
        op: &str,
        input: Value,
        sheet: &mut Sheet,
    ) -> Result<Option<Value>, Stop> {
        let refused = match self.ask(op, input).await? {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let title = self.out.paint.red("Not done:");
        let message = safe_text::block(&refused.message);
        self.out.line(&format!("{title} {message}"))?;
        if let Some(hint) = &refused.hint {
            self.out.line(&safe_text::block(hint))?;
        }
        match refused.kind {
            OpErrorKind::Conflict | OpErrorKind::NotFound => {}
            OpErrorKind::Internal
            | OpErrorKind::Invalid
            | OpErrorKind::Forbidden
            | OpErrorKind::Unavailable => return Ok(None),
        }
        let now = self.ask("change.show", json!({"id": sheet.id()})).await??;
        let is_new = now["digest"] != sheet.change["digest"];
        sheet.renew(now);
        if !sheet.is_open() {
            let state = safe_text::line(sheet.change["state"].as_str().unwrap_or("?"));
            self.tell(&format!("Change {} is {state} now.", sheet.id()))?;
            self.tell_unsent(sheet)?;
        } else if is_new {
            self.tell("\nThis is the change as it is now:")?;
            self.show(sheet)?;
        }
        Ok(None)
    }
}
