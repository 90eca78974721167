//! `review`: the changes that wait, one after another, decided on with single keys. Every decision is
//! an operation that names the digest of what was shown; no decision is made by a key that was not
//! named, or by the end of the input.

mod decide;
mod sheet;

use std::io::{self, IsTerminal};

use chrono::Utc;
use serde_json::{Value, json};

use self::sheet::{Sheet, Standing};
use super::forms::counted;
use super::keys::{Ahead, Key, Keyboard, Stop};
use super::out::Out;
use super::{CliError, End, change_view, programs};
use crate::ops::values::ChangeRef;
use crate::ops::{self, OpContext, OpError};
use crate::surface::safe_text;

/// Lines of one diff that are shown at once; the pager has all of them.
const DIFF_LINES_SHOWN: usize = 400;

const KEYS: &str = "\
  n, space, →   next file                a  approve this file
  p, ←          previous file            r  reject this file, with a reason
  v             all of it in the pager   c  comment on this file
  s             skip this change         A  approve the whole change
  q             quit                     R  reject the whole change, with a reason
  ?             this                     m  ask the agent for more, with the comments";

/// Review the changes that wait, one after another, with single keys
#[derive(Clone, Debug, clap::Args)]
pub struct ReviewArgs {
    /// Only this change, such as 7; else all that wait, the oldest first
    #[arg(value_name = "CHANGE")]
    pub id: Option<ChangeRef>,
    /// Only of this project
    #[arg(long, short, conflicts_with = "id")]
    pub project: Option<String>,
}

/// What follows a change.
enum After {
    /// The next one.
    Next,
    /// Nothing.
    Quit,
}

/// Review, until nothing waits or the reviewer leaves.
pub(super) async fn run(
    context: &OpContext,
    out: &mut Out,
    args: &ReviewArgs,
    json: bool,
    pager: bool,
) -> Result<End, CliError> {
    if json || !out.terminal || !io::stdin().is_terminal() {
        return Err(OpError::invalid("a review needs a person at a terminal")
            .code("no_terminal")
            .hint(
                "Elsewhere: dispatch changes list --state pending, dispatch changes show CHANGE, \
                 dispatch changes approve CHANGE --digest DIGEST, dispatch changes reject CHANGE --reason WHY.",
            )
            .into());
    }
    let keys = Keyboard::open()?;
    let mut review = Review {
        context,
        out,
        keys,
        pager,
    };
    match review.all(args).await {
        Ok(()) | Err(Stop::EndOfInput) => Ok(End::Done),
        Err(Stop::Signal) => Ok(End::Interrupted),
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Review<'a> {
    context: &'a OpContext,
    out: &'a mut Out,
    keys: Keyboard,
    pager: bool,
}

impl Review<'_> {
    async fn all(&mut self, args: &ReviewArgs) -> Result<(), Stop> {
        if let Some(id) = &args.id {
            let change = self.ask("change.show", json!({"id": id})).await??;
            let sheet = Sheet::new(change);
            if !sheet.is_open() {
                let state = safe_text::line(sheet.change["state"].as_str().unwrap_or("?"));
                let refused =
                    OpError::wrong_state(format!("change {} is {state} already", sheet.id()))
                        .hint(format!("dispatch changes show {} shows it.", sheet.id()));
                return Err(refused.into());
            }
            self.change(sheet).await?;
            return Ok(());
        }
        let waiting = self.waiting(args.project.as_deref()).await?;
        if waiting.is_empty() {
            let none = "No change waits for review. Agents that edit files leave one: dispatch submit PROJECT \"what to do\"";
            return Ok(self.out.line(none)?);
        }
        for (n, id) in waiting.iter().enumerate() {
            let sheet = Sheet::new(self.ask("change.show", json!({"id": id})).await??);
            // Somebody else was faster.
            if sheet.change["state"] != "pending" {
                continue;
            }
            let place = format!(
                "\n{} of {}",
                n + 1,
                counted(&waiting.len().to_string(), "change")
            );
            let place = self.out.paint.dim(&place);
            self.out.line(&place)?;
            match self.change(sheet).await? {
                After::Next => {}
                After::Quit => return Ok(()),
            }
        }
        Ok(self.out.line("That was the last one.")?)
    }

    /// The changes that wait, the oldest first.
    async fn waiting(&mut self, project: Option<&str>) -> Result<Vec<i64>, Stop> {
        let mut found = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let input =
                json!({"state": "pending", "project": project, "limit": 200, "cursor": cursor});
            let page = self.ask("change.list", input).await??;
            let rows = page["data"].as_array().map_or(&[][..], Vec::as_slice);
            found.extend(rows.iter().filter_map(|row| row["id"].as_i64()));
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                found.reverse();
                return Ok(found);
            }
        }
    }

    /// One change, until it is decided on or left.
    async fn change(&mut self, mut sheet: Sheet) -> Result<After, Stop> {
        let after = self.desk(&mut sheet).await;
        if after.is_err() {
            // The terminal may be gone with its reader.
            let _told = self.out.line("").and_then(|()| self.tell_unsent(&sheet));
        }
        after
    }

    async fn desk(&mut self, sheet: &mut Sheet) -> Result<After, Stop> {
        self.show(sheet)?;
        loop {
            let of = match sheet.count() {
                0 => String::new(),
                count => format!(", file {} of {count}", sheet.number()),
            };
            let prompt = format!("Change {}{of} [n p a r c A R m v s q ?] ", sheet.id());
            let prompt = self.out.paint.bold(&prompt);
            let key = self.keys.key(self.out, &prompt, Ahead::Counts).await?;
            let after = match key {
                Key::Char('n' | ' ') | Key::Right => self.step(sheet.next(), sheet)?,
                Key::Char('p') | Key::Left => self.step(sheet.previous(), sheet)?,
                Key::Char('a') => self.approve_file(sheet).await?,
                Key::Char('r') => self.reject_file(sheet).await?,
                Key::Char('c') => self.comment(sheet).await?,
                Key::Char('A') => self.approve(sheet).await?,
                Key::Char('R') => self.reject(sheet).await?,
                Key::Char('m') => self.request(sheet).await?,
                Key::Char('v') => self.view(sheet).await?,
                Key::Char('s') => self.leave(sheet, After::Next).await?,
                Key::Char('q') => self.leave(sheet, After::Quit).await?,
                Key::Char('?') => self.tell(KEYS)?,
                Key::Char(_) | Key::Other => self.tell("That is no key here; ? shows them.")?,
            };
            if let Some(after) = after {
                return Ok(after);
            }
            if !sheet.is_open() {
                return Ok(After::Next);
            }
        }
    }

    fn tell(&mut self, text: &str) -> Result<Option<After>, Stop> {
        self.out.line(text)?;
        Ok(None)
    }

    fn show(&mut self, sheet: &Sheet) -> Result<(), Stop> {
        change_view::opening(self.out, &sheet.change, Utc::now())?;
        self.show_file(sheet)
    }

    fn show_file(&mut self, sheet: &Sheet) -> Result<(), Stop> {
        let Some(file) = sheet.file() else {
            return Ok(());
        };
        let mut page = self.out.sheet();
        change_view::diff(&mut page, file)?;
        let text = page.into_text();
        let mut lines = text.split_inclusive('\n');
        let shown: String = lines.by_ref().take(DIFF_LINES_SHOWN).collect();
        self.out.print(&shown)?;
        let more = lines.count();
        if more > 0 {
            let more = format!("({} more; v shows all)", counted(&more.to_string(), "line"));
            let more = self.out.paint.yellow(&more);
            self.out.line(&more)?;
        }
        for comment in sheet.comments_here() {
            let comment = format!("You: {}", safe_text::line(comment));
            let comment = self.out.paint.cyan(&comment);
            self.out.line(&comment)?;
        }
        let standing = match sheet.standing() {
            Standing::Open => return Ok(()),
            Standing::Approved => self.out.paint.green("You approve this file; A sends it."),
            Standing::SetAside => self.out.paint.red("This file is set aside."),
        };
        Ok(self.out.line(&standing)?)
    }

    fn step(&mut self, moved: bool, sheet: &Sheet) -> Result<Option<After>, Stop> {
        if !moved {
            return self.tell("There is no other file that way.");
        }
        self.show_file(sheet)?;
        Ok(None)
    }

    async fn comment(&mut self, sheet: &mut Sheet) -> Result<Option<After>, Stop> {
        match self.words("What about this file? ").await? {
            None => self.tell("No comment."),
            Some(text) => {
                sheet.comment(text);
                let count = counted(&sheet.comment_count().to_string(), "comment");
                self.tell(&format!(
                    "{count}, not sent yet; m sends them to the agent."
                ))
            }
        }
    }

    async fn view(&mut self, sheet: &Sheet) -> Result<Option<After>, Stop> {
        let Some(file) = sheet.file() else {
            return self.tell("It has no files.");
        };
        let mut page = self.out.sheet();
        change_view::diff(&mut page, file)?;
        let text = page.into_text();
        if self.pager {
            let stop = self.keys.end_of_loan();
            let shown = programs::page_unless(self.out, text, stop).await;
            self.keys.take_back()?;
            shown?;
        } else {
            self.out.print(&text)?;
        }
        Ok(None)
    }

    /// Leave the change as it is; what was said of it and not sent is asked about.
    async fn leave(&mut self, sheet: &Sheet, after: After) -> Result<Option<After>, Stop> {
        if sheet.comment_count() + sheet.approved_count() > 0 {
            let question = format!(
                "{} and {} are not sent. Leave all the same?",
                counted(&sheet.comment_count().to_string(), "comment"),
                counted(&sheet.approved_count().to_string(), "approved file")
            );
            if !self.confirmed(&question).await? {
                return self.tell("m sends comments to the agent, A approves.");
            }
            self.tell_unsent(sheet)?;
        }
        Ok(Some(after))
    }

    fn tell_unsent(&mut self, sheet: &Sheet) -> io::Result<()> {
        if sheet.approved_count() > 0 {
            self.out.line(&format!(
                "Change {} is not approved, nor is a file of it.",
                sheet.id()
            ))?;
        }
        if sheet.comment_count() > 0 {
            let said = safe_text::block(&sheet.said());
            self.out.line(&format!(
                "Your comments on change {}, which were not sent:\n{said}",
                sheet.id()
            ))?;
        }
        Ok(())
    }

    /// A line in answer to a question; `None`: nothing is said.
    async fn words(&mut self, question: &str) -> Result<Option<String>, Stop> {
        self.out.print(question)?;
        match self.keys.line().await {
            Ok(line) => Ok(Some(line).filter(|line| !line.trim().is_empty())),
            Err(Stop::EndOfInput) => {
                self.out.line("")?;
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Whether the next key is a yes; what was typed before the question is none.
    async fn confirmed(&mut self, question: &str) -> Result<bool, Stop> {
        let question = self.out.paint.bold(&format!("{question} [y, else no] "));
        let key = self.keys.key(self.out, &question, Ahead::Forgotten);
        Ok(key.await? == Key::Char('y'))
    }

    async fn ask(&mut self, op: &str, input: Value) -> Result<Result<Value, OpError>, Stop> {
        let entry = ops::find(op).ok_or_else(|| OpError::internal(format!("no operation {op}")))?;
        let input = (entry.normalize)(input)?;
        self.keys
            .unless_stopped((entry.call)(self.context, input))
            .await
    }
}

impl From<OpError> for Stop {
    fn from(error: OpError) -> Self {
        Self::Failed(error.into())
    }
}
